"""DL4J's layers as torch modules."""

from __future__ import annotations

from collections.abc import Callable

from strombus.interchange.dl4j.fields import Fields
from strombus.interchange.dl4j.layers.base import Entry, Layer, Signal
from strombus.interchange.dl4j.layers.convolution import (
    Convolution,
    Convolution1D,
    Subsampling,
    Subsampling1D,
    Upsampling,
    Upsampling1D,
    ZeroPadding,
    ZeroPadding1D,
)
from strombus.interchange.dl4j.layers.embedding import Embedding, EmbeddingSequence
from strombus.interchange.dl4j.layers.feedforward import (
    ActivationOnly,
    Dense,
    DropoutOnly,
    LossOnly,
    Output,
    RnnOutput,
)
from strombus.interchange.dl4j.layers.normalization import BatchNormalization
from strombus.interchange.dl4j.layers.recurrent import (
    Bidirectional,
    GlobalPooling,
    GravesLstm,
    LastTimeStep,
    Lstm,
    SimpleRnn,
)

__all__ = ["LAYERS", "Entry", "Layer", "Signal", "read_layer"]

PACKAGE = "org.deeplearning4j.nn.conf.layers"


def read_layer(fields: Fields) -> Layer:
    """Read one layer; what is not known is an error that names it."""
    layer = fields.kind(PACKAGE, LAYERS, "layer")(fields)
    fields.done()
    return layer


LAYERS: dict[str, Callable[[Fields], Layer]] = {
    "ActivationLayer": ActivationOnly,
    "BatchNormalization": BatchNormalization,
    "Bidirectional": lambda fields: Bidirectional(fields, read_layer),
    "CnnLossLayer": LossOnly,
    "Convolution1D": Convolution1D,
    "Convolution1DLayer": Convolution1D,
    "Convolution2D": Convolution,
    "ConvolutionLayer": Convolution,
    "DenseLayer": Dense,
    "DropoutLayer": DropoutOnly,
    "EmbeddingLayer": Embedding,
    "EmbeddingSequenceLayer": EmbeddingSequence,
    "GlobalPoolingLayer": GlobalPooling,
    "GravesLSTM": GravesLstm,
    "LSTM": Lstm,
    "LastTimeStep": lambda fields: LastTimeStep(fields, read_layer),
    "LossLayer": LossOnly,
    "OutputLayer": Output,
    "Pooling1D": Subsampling1D,
    "Pooling2D": Subsampling,
    "RnnLossLayer": LossOnly,
    "RnnOutputLayer": RnnOutput,
    "SimpleRnn": SimpleRnn,
    "Subsampling1DLayer": Subsampling1D,
    "SubsamplingLayer": Subsampling,
    "Upsampling1D": Upsampling1D,
    "Upsampling2D": Upsampling,
    "ZeroPadding1DLayer": ZeroPadding1D,
    "ZeroPaddingLayer": ZeroPadding,
}
