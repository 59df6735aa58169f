"""Builders of the data sets that TensorFlow Datasets cannot serve without TensorFlow; one file a set."""
