"""A trained network leaves training: files that outlive the program that wrote them."""
