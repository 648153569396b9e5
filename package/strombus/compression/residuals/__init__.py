"""What happens to residuals between steps: one file for each way."""

from strombus.compression.residuals.base import ResidualPostProcessor
from strombus.compression.residuals.clipping import ResidualClippingPostProcessor
from strombus.compression.residuals.none import NoOpResidualPostProcessor
from strombus.registry import Registry

__all__ = [
    "NoOpResidualPostProcessor",
    "ResidualClippingPostProcessor",
    "ResidualPostProcessor",
    "residual_post_processors",
]

residual_post_processors = Registry(
    "residual post-processor",
    {
        "clipping": "strombus.compression.residuals.clipping:ResidualClippingPostProcessor",
        "none": "strombus.compression.residuals.none:NoOpResidualPostProcessor",
    },
    group="strombus.residual_post_processors",
)
