"""A trained network leaves training: files that outlive the program that wrote them."""

from bsojax.deploy._model_file import load_model as load_model
from bsojax.deploy._model_file import save_model as save_model
from bsojax.deploy._model_file import SavedModel as SavedModel
