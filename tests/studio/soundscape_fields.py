"""What the soundscape tab's fields hold, what makes its sounds, and a recording to drop."""

import numpy as np
import soundfile
from tiny import make_pipeline
from tiny_panorama import make_panorama_pipeline
from tiny_soundscape import save_soundscape_model

from generation.studio.soundscape_form import ANY, SoundscapeForm


def make_home(folder):
    """Save tiny models of everything that the tab makes, as TERRASCAPE_HOME has them."""
    save_soundscape_model(folder)
    make_pipeline().save_pretrained(folder / "satellite-nano")
    make_panorama_pipeline().save_pretrained(folder / "panorama-nano")
    return folder


def form(**changes):
    given = {"lat": 45.98, "lon": 7.66, "month": ANY, "hour": ANY, "seconds": 1, "loop": False}
    given |= {"choice": "auto", "image": None, "prompt": "", "use_location": True, "seed": "7"}
    given |= {"steps": 2, "sound_guidance": 2.0, "candidates": 1, "model": "soundscape-nano"}
    given |= {"sound_model": "sat2sound-nano", "caption": "", "given": [], "rows": "[]"}
    return SoundscapeForm(**{**given, **changes})


def row(layer, **changes):
    return {"key": layer.key, "text": layer.text, "level_db": layer.level_db, "pan": layer.pan} | (
        changes
    )


def write_hum(path, loudness=0.2):
    """Save a recording of half a second."""
    told = loudness * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    soundfile.write(path, told.astype(np.float32), 16_000)
    return path
