"""Every model by name: what it is, under which licence, and where its weights lie.

Embedded models live in the checkout's ``assets/``. Full-size ones are looked for below the folder
that the variable TERRASCAPE_HOME names; it is searched first, so a model there replaces the
embedded one of its name. Nothing here touches the network or imports torch.
"""

import difflib
import json
import os
from pathlib import Path

from generation.cards import CARDS, SIMULATED, ModelCard
from generation.checkpoint import PART_WEIGHTS
from generation.errors import InvalidSpecError, MissingFileError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
GALLERY = ASSETS / "gallery-nano"
"""Tiles, clips and captions that are searched unless the person names other ones."""
PIPELINE_KINDS = ("satellite", "panorama", "soundscape")
SIMULATED_NOTE = (
    "what a place sounds like was learnt from clips whose places are simulated "
    "(location_source=simulated)"
)
"""Follows everything that a model whose ``location_source`` it is has a share in."""
_INDEX = "model_index.json"
"""Names the parts of a whole pipeline, as diffusers writes it: name -> [library, class]."""
_WEIGHTS = {"transformers": "model.safetensors"}
"""Library -> its name for a part's weights; diffusers' is that of all others, ours too."""
_UNUSED = ("feature_extractor", "safety_checker")
"""Parts of published pipelines that nothing here reads, so a download may lack them."""


_BY_NAME = {card.name: card for card in CARDS}
_BY_ALIAS = {alias.lower(): card for card in CARDS for alias in card.hub}


def list_models(kind: str | None = None) -> list[str]:
    """Names that ``--model`` takes; with a kind, all models of that kind, parts of models too."""
    kinds = PIPELINE_KINDS if kind is None else (kind,)
    return [card.name for card in CARDS if card.kind in kinds]


def find(name: str) -> ModelCard:
    """Give the card of a model by its name or by its name on the Hub.

    Raises:
        InvalidSpecError: No model has this name.
    """
    card = _BY_NAME.get(name) or _BY_ALIAS.get(name.lower())
    if card is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of them"
        raise InvalidSpecError(f"no model is named {name!r} (known: {', '.join(_BY_NAME)}; {hint})")
    return card


def places_are_simulated(name: str) -> bool:
    """Tell whether a registered model of sounds learnt from simulated places."""
    return name in _BY_NAME and _BY_NAME[name].location_source == SIMULATED


def is_here(name: str) -> bool:
    """Tell whether a model is on this machine, with every part."""
    folder = _folder(find(name))
    return folder is not None and not _absent(folder)


def locate(name: str) -> Path:
    """Give the folder that holds a model's weights.

    Raises:
        InvalidSpecError: No model has this name.
        MissingFileError: It is not here, or not all of it; the message says how to get it.
    """
    card = find(name)
    folder = _folder(card)
    if folder is None:
        looked = " and ".join(str(root / card.local) for root in _roots())
        raise MissingFileError(f"no weights of {card.name} in {looked} ({_cure(card)})")
    absent = _absent(folder)
    if absent:
        raise MissingFileError(
            f"{card.name} is not whole in {folder}: {', '.join(absent)} (put back what is missing, "
            f"or the folder; {_cure(card)})"
        )
    return folder


def _roots() -> list[Path]:
    home = os.environ.get("TERRASCAPE_HOME")
    return [Path(home).expanduser(), ASSETS] if home else [ASSETS]


def _cure(card: ModelCard) -> str:
    if card.checkpoint:
        return (
            f"`terrascape convert {card.name} FILE.ckpt --out FOLDER/{card.local}` makes it of "
            f"{card.checkpoint}; then let TERRASCAPE_HOME name FOLDER"
        )
    if card.hub:
        return (
            f"download {' or '.join(card.hub)} into a folder named {card.local}, or `terrascape "
            "convert` its checkpoint, and let TERRASCAPE_HOME name the folder above it"
        )
    if card.recipe:
        return (
            f"nobody publishes it: `{card.recipe}` trains it; put the run's weights into a folder "
            f"named {card.local} and let TERRASCAPE_HOME name the folder above it"
        )
    return (
        "it comes with the source: install from a checkout with `pip install -e .`, or let "
        "TERRASCAPE_HOME name the checkout's assets folder"
    )


def _folder(card: ModelCard) -> Path | None:
    """Return the first folder of a model that holds weights; an empty one is none.

    One that holds a part of them is taken too, and then refused by what it lacks: what a person
    has put there must not be passed over in silence for the embedded model.
    """
    for root in _roots():
        if next((root / card.local).rglob("*.safetensors"), None) is not None:
            return root / card.local
    return None


def _absent(folder: Path) -> list[str]:
    """Say what a pipeline's folder lacks of the parts that it names itself.

    A folder that names none, such as a single part's, is not looked into.
    """
    path = folder / _INDEX
    if not path.is_file():
        return []
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        index = None
    if not isinstance(index, dict):
        return [f"{_INDEX} is no JSON object"]
    return [
        f"{name}/{' or '.join(names)} is missing"
        for name, value in index.items()
        if name not in _UNUSED
        for names in _files_of(value)
        if not any((folder / name / file).is_file() for file in names)
    ]


def _files_of(value: object) -> list[tuple[str, ...]]:
    """Give the files that a part must have, each with its other names; a setting has none."""
    match value:
        case [str(), str(kind)] if kind.endswith("Scheduler"):
            return [("scheduler_config.json",)]
        case [str(), str(kind)] if "Tokenizer" in kind:
            return [("vocab.json", "tokenizer.json")]
        case [str(), str(kind)] if kind.endswith(("FeatureExtractor", "ImageProcessor")):
            return [("preprocessor_config.json",)]
        case [str(library), str()]:
            return [("config.json",), (_WEIGHTS.get(library, PART_WEIGHTS),)]
    return []
