"""Terrascape's public face: places, and the models that draw them.

Names are resolved on first use, so ``import generation`` costs milliseconds and no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generation.geo.location import Location, Region
    from generation.registry import list_models

__version__ = "0.1.0"
__all__ = ["Location", "Region", "__version__", "list_models", "load"]

_HOMES = {
    "Location": "generation.geo.location",
    "Region": "generation.geo.location",
    "list_models": "generation.registry",
}


def load(name: str = "satellite-nano") -> Any:  # noqa: ANN401 - one pipeline class for each kind
    """Give the pipeline of a registered model, with its weights.

    Args:
        name: One of ``list_models()``, or an alias of it on the Hub.

    Raises:
        InvalidSpecError: No model has this name, or it is a part and not a pipeline.
        MissingFileError: Its weights are not on this machine.
    """
    from generation.errors import InvalidSpecError
    from generation.registry import PIPELINE_KINDS, find, locate

    card = find(name)
    if card.kind not in PIPELINE_KINDS:
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r}, which is a part of a pipeline and not one "
            f"(models that draw: {', '.join(_public('list_models')())})"
        )
    if card.family == "geosynth":
        from generation.pipelines.geosynth import load_geosynth

        return load_geosynth(card.name)
    if card.family == "mixed-view":
        from generation.pipelines.panorama_sd import load_mixed_view

        return load_mixed_view(card.name)
    if card.kind == "soundscape":
        from generation.pipelines.sound_maker import sound_maker

        return sound_maker(card.name)
    folder = locate(name)
    if card.kind == "panorama":
        from generation.pipelines.panorama import PanoramaPipeline

        return PanoramaPipeline.from_pretrained(folder)
    from generation.pipelines.satellite import SatellitePipeline

    return SatellitePipeline.from_pretrained(folder)


def _public(name: str) -> Any:  # noqa: ANN401 - whatever the module holds
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name in _HOMES:
        return _public(name)
    raise AttributeError(f"module 'generation' has no attribute {name!r} (public: {__all__})")


def __dir__() -> list[str]:
    return sorted(__all__)
