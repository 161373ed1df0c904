"""Which pipeline draws which kind; each is imported when it is asked for, since torch comes too."""

from generation.errors import InvalidSpecError, shown
from generation.media.artifact import Renderer
from generation.spec import KINDS


def renderer_for(kind: str) -> Renderer:
    """Give what renders specs of a kind.

    Raises:
        InvalidSpecError: There is no such kind.
    """
    if kind == "satellite":
        from generation.pipelines.satellite import render

        return render
    if kind == "panorama":
        from generation.pipelines.panorama_render import render as render_panorama

        return render_panorama
    if kind == "soundscape":
        from generation.pipelines.soundscape_render import render as render_soundscape

        return render_soundscape
    raise InvalidSpecError(f"kind={shown(kind)} is unknown (give {' or '.join(KINDS)})")
