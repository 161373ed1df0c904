"""What people mean by names of taxa."""

import pytest

from generation.encoders.taxonomy import Taxonomy
from generation.errors import InvalidSpecError, MissingFileError

TAXA = [
    ("Carnivora", "Felidae", "Panthera", "leo"),
    ("Carnivora", "Felidae", "Panthera", "tigris"),
    ("Carnivora", "Felidae", "Lynx", "lynx"),
    ("Carnivora", "Canidae", "Vulpes", "vulpes"),
    ("Rodentia", "Muridae", "Mus", "musculus"),
    ("Chiroptera", "Pteropodidae", "Pteropus", "leo"),
]


@pytest.fixture(scope="module")
def table():
    return Taxonomy(TAXA, [True, False, True, True, False, True])


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("Carnivora Felidae Panthera leo", "Carnivora Felidae Panthera leo"),
        ("Panthera leo", "Carnivora Felidae Panthera leo"),
        ("panthera_leo", "Carnivora Felidae Panthera leo"),
        ("  LEO   felidae ", "Carnivora Felidae Panthera leo"),
        ("Panthera", "Carnivora Felidae Panthera"),
        ("Felidae", "Carnivora Felidae"),
        ("carnivora", "Carnivora"),
        ("Mus musculus", "Rodentia Muridae Mus musculus"),
        ("lynx", "Carnivora Felidae Lynx lynx"),
    ],
)
def test_any_ranks_in_any_order_are_understood(table, asked, meant):
    taxon = table.resolve(asked)
    assert taxon.string == meant
    assert taxon.known
    assert taxon.notes == ()


def test_it_says_what_was_learnt(table):
    assert table.resolve("Panthera").learnt
    assert not table.resolve("Panthera tigris").learnt
    assert not table.resolve("Rodentia").learnt


def test_a_new_species_of_a_known_genus_is_taken_by_its_name(table):
    taxon = table.resolve("Panthera novus")
    assert taxon.string == "Carnivora Felidae Panthera novus"
    assert not taxon.known
    assert "'novus' is not known; it is read as the name of something in" in taxon.notes[0]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("", "names nothing"),
        (" ,;12 ", "names nothing"),
        ("Pantera", "close to it: Panthera"),
        ("Quercus alba", "is not known (give an order"),
        ("leo", "is the name of several: Carnivora Felidae Panthera, Chiroptera"),
        ("Felidae Vulpes", "'Vulpes' and 'Felidae' name no species together"),
        ("狮子", "is not known"),
        ("a" * 300, "has 300 letters"),
    ],
)
def test_each_mistake_is_told(table, asked, told):
    with pytest.raises(InvalidSpecError) as error:
        table.resolve(asked)
    assert told in str(error.value)


def test_a_misspelt_species_is_noted_with_what_is_close(table):
    (note,) = table.resolve("Panthera tigriss").notes
    assert "close to it: tigris" in note


def test_the_table_comes_back_from_its_file(table, tmp_path):
    table.write(tmp_path / "taxa.csv")
    again = Taxonomy.read(tmp_path / "taxa.csv")
    assert (again.taxa, again.learnt) == (table.taxa, table.learnt)
    with pytest.raises(MissingFileError, match="lies beside the weights"):
        Taxonomy.read(tmp_path / "absent.csv")
