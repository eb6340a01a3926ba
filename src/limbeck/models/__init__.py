"""Networks of the recipes, and what is asked of any model: its size, its weights, its input.

Each network is a function `name(*, input_shape, classes, **options) -> nn.Module`.
"""

from limbeck.models.foreign.keras import KerasModel
from limbeck.models.foreign.onnx import OnnxModel
from limbeck.models.layout import Layout, device_of, lay_out, move
from limbeck.models.lazy import lazy_layers, materialise, refuse_lazy
from limbeck.models.measure import multiply_adds, parameter_count
from limbeck.models.named_inputs import NamedInputs
from limbeck.models.networks.bag_of_embeddings import bag_of_embeddings
from limbeck.models.networks.cnn import cnn
from limbeck.models.networks.keras_cnn import keras_cnn
from limbeck.models.networks.mlp import mlp
from limbeck.models.networks.mobilenet import mobilenet_v1, mobilenet_v2
from limbeck.models.networks.multi_exit import (
    byot_resnet18,
    byot_resnet34,
    byot_resnet50,
    byot_resnet101,
    byot_resnet152,
    byot_small,
)
from limbeck.models.networks.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from limbeck.models.networks.resnet_cifar import (
    resnet8,
    resnet8x4,
    resnet14,
    resnet20,
    resnet32,
    resnet32x4,
    resnet44,
    resnet56,
    resnet110,
)
from limbeck.models.networks.shufflenet import shufflenet_v1, shufflenet_v2
from limbeck.models.networks.transformer import text_encoder, transformer
from limbeck.models.networks.tutorial_cnn import tutorial_student, tutorial_teacher
from limbeck.models.networks.vgg import vgg8, vgg13
from limbeck.models.networks.wide_resnet import wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2
from limbeck.models.preprocess import Preprocess, preprocess
from limbeck.models.weights import load_weights, read_weights

_NETWORKS = (
    mlp, cnn, keras_cnn, tutorial_teacher, tutorial_student,
    resnet8, resnet14, resnet20, resnet32, resnet44, resnet56, resnet110, resnet8x4, resnet32x4,
    wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2, vgg8, vgg13,
    mobilenet_v1, mobilenet_v2, shufflenet_v1, shufflenet_v2,
    resnet18, resnet34, resnet50, resnet101, resnet152,
    byot_small, byot_resnet18, byot_resnet34, byot_resnet50, byot_resnet101, byot_resnet152,
    transformer, text_encoder, bag_of_embeddings,
)  # fmt: skip
NETWORKS = {builder.__name__: builder for builder in _NETWORKS}
"""The networks that a recipe can give as `model`, by name."""

__all__ = [
    "NETWORKS",
    "KerasModel",
    "Layout",
    "NamedInputs",
    "OnnxModel",
    "Preprocess",
    "device_of",
    "lay_out",
    "lazy_layers",
    "load_weights",
    "materialise",
    "move",
    "multiply_adds",
    "parameter_count",
    "preprocess",
    "read_weights",
    "refuse_lazy",
    *NETWORKS,
]
