"""A registered pipeline as something that draws scenes: the only tie of the measures to it."""

from collections.abc import Sequence

from generation.diffusion.guidance import GuidanceScales
from generation.pipelines.satellite import SatellitePipeline, open_pipeline
from generation.pipelines.scene import Scene
from generation.spec import RunSpec
from training.metrics import Images


class PipelinePainter:
    """Draws scenes with the settings that a render of the same place would have."""

    def __init__(
        self, model: str, pipeline: SatellitePipeline | None = None, **settings: float | int
    ) -> None:
        """Load a model and check the settings as a render does.

        Args:
            model: A name of the registry.
            pipeline: Used instead of loading the model.
            settings: Fields of :class:`RunSpec` that differ from its defaults: ``steps``,
                ``text_guidance``, ``location_guidance``, ``layout_guidance``.
        """
        self.spec = RunSpec.from_dict({"lat": 0.0, "lon": 0.0, "model": model, **settings})
        self.pipeline = pipeline or open_pipeline(model)
        self.guidance = GuidanceScales(
            self.spec.layout_guidance, self.spec.location_guidance, self.spec.text_guidance
        )

    def __call__(self, scenes: Sequence[Scene]) -> Images:
        """Draw one picture for each scene."""
        return self.pipeline(scenes, num_inference_steps=self.spec.steps, guidance=self.guidance)

    def reconstruct(self, scenes: Sequence[Scene], images: Images) -> Images | None:
        """Take real images through the model's latents and back; ``None`` where it has none."""
        if not isinstance(self.pipeline, SatellitePipeline):
            return None
        return self.pipeline.reconstruct(scenes, images)

    def about(self) -> dict[str, object]:
        """Return what a report says of the model."""
        settings = {
            name: getattr(self.spec, name)
            for name in ("steps", "text_guidance", "location_guidance", "layout_guidance")
        }
        return {"model": self.pipeline.sha256, "model_name": self.spec.model, "sampler": settings}
