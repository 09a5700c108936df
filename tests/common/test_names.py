"""The nearest name."""

from pocketprune.common.names import nearest, similar, suggestion


def test_a_suggestion_is_silent_without_a_likeness() -> None:
    assert suggestion("chanel", ["channel", "full-prec"]) == "; did you mean 'channel'?"
    assert suggestion("xyz", ["channel"]) == ""


def test_nearest_lists_what_is_accepted_without_a_likeness() -> None:
    assert nearest("chanel", ["channel", "full-prec"]) == "; did you mean 'channel'?"
    assert nearest("xyz", ["channel", "full-prec"]) == "; accepted: channel, full-prec"
    assert nearest("xyz", map(str, range(10))) == "; accepted: 0, 1, 2, 3, 4, 5, 6, 7, ..."
    assert nearest("xyz", []) == ""


def test_the_cutoff_says_how_alike_names_must_be() -> None:
    assert similar("resnot", ["resnet", "plain"]) == "resnet"
    assert similar("res", ["resnet_imagenet"]) == ""
    assert similar("res", ["resnet_imagenet"], cutoff=0.3) == "resnet_imagenet"
