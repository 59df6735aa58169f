"""How a trained network leaves JAX: as a file, as whole numbers, as C, as a program."""

from bsojax.deploy._agreement import Agreement as Agreement
from bsojax.deploy._export import export_inference as export_inference
from bsojax.deploy._graph import Add as Add
from bsojax.deploy._graph import AnyPool as AnyPool
from bsojax.deploy._graph import Current as Current
from bsojax.deploy._graph import Flatten as Flatten
from bsojax.deploy._graph import Graph as Graph
from bsojax.deploy._graph import holds_spikes as holds_spikes
from bsojax.deploy._graph import Input as Input
from bsojax.deploy._graph import Neurons as Neurons
from bsojax.deploy._graph import Node as Node
from bsojax.deploy._graph import Real as Real
from bsojax.deploy._graph import sources as sources
from bsojax.deploy._graph import SumPool as SumPool
from bsojax.deploy._graph import Synapse as Synapse
from bsojax.deploy._graph import Whole as Whole
from bsojax.deploy._graph import Window as Window
from bsojax.deploy._integers import integer_network as integer_network
from bsojax.deploy._model_file import load_model as load_model
from bsojax.deploy._model_file import save_model as save_model
from bsojax.deploy._model_file import SavedModel as SavedModel
from bsojax.deploy._network import IntegerNetwork as IntegerNetwork
from bsojax.deploy._network import load as load
from bsojax.deploy._report import DeploymentReport as DeploymentReport
from bsojax.deploy._report import LayerReport as LayerReport
