"""What brings features, and labels on request, to one scale: fitted once, applied wherever the network is used."""

from strombus.normalizers.base import Gathered, Normalizer, Scaling
from strombus.normalizers.image import ImagePreProcessingScaler
from strombus.normalizers.min_max import NormalizerMinMaxScaler
from strombus.normalizers.standardize import NormalizerStandardize
from strombus.registry import Registry

__all__ = [
    "Gathered",
    "ImagePreProcessingScaler",
    "Normalizer",
    "NormalizerMinMaxScaler",
    "NormalizerStandardize",
    "Scaling",
    "normalizers",
]

normalizers = Registry(
    "normalizer",
    {
        "image": "strombus.normalizers.image:ImagePreProcessingScaler",
        "min_max": "strombus.normalizers.min_max:NormalizerMinMaxScaler",
        "standardize": "strombus.normalizers.standardize:NormalizerStandardize",
    },
    "strombus.normalizers",
)
