import ast
import subprocess
import sys

import pytest

from generation.errors import InvalidSpecError
from generation.pipelines.kinds import renderer_for
from generation.spec import DEFAULT_MODELS, KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_renderer_and_a_model(kind):
    assert callable(renderer_for(kind))
    assert DEFAULT_MODELS[kind].startswith(kind)


def test_another_kind_is_refused():
    with pytest.raises(InvalidSpecError, match=r"kind='sonnet' is unknown.*satellite or panorama"):
        renderer_for("sonnet")


def test_choosing_costs_nothing_until_it_is_done():
    code = (
        "import sys, generation.pipelines.kinds, generation.media.artifact, generation.replay\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) is False
