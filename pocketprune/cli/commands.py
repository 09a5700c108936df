"""The commands: each takes its parsed arguments and does what a few lines with the library would."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pocketprune.channel_pruning.options import Hooks, PruningOptions
from pocketprune.channel_pruning.pruning import prune_channels
from pocketprune.channel_pruning.ratio_list import parse_ratio_list, write_ratio_list
from pocketprune.channel_pruning.searching.ratios import search_ratios
from pocketprune.channel_pruning.targets import MacsShare, Target
from pocketprune.cli.loading import Data, device_named, load_data, load_net
from pocketprune.cli.results import Command, write_result
from pocketprune.common.errors import UserError
from pocketprune.deploy.export import export_onnx, export_openvino, export_pt2
from pocketprune.graph.tracing import batch_of
from pocketprune.reporting import report
from pocketprune.reporting.compare_page import compare
from pocketprune.reporting.exports import export_entries, export_table
from pocketprune.reporting.run_page import write_page
from pocketprune.reporting.tables import group_listing, layer_listing
from pocketprune.search import Budget, SearchSettings
from pocketprune.structure.batches import at_batch
from pocketprune.structure.channel_groups import Structure, analyse
from pocketprune.structure.layers import layers_of

OPTIONS = ("selection", "shared_input", "points_per_layer", "channel_multiple", "layers", "attention", "ignore", "seed")
"""The options of the engine that the command line offers."""
FORMATS = {"onnx": (".onnx", export_onnx), "openvino": (".xml", export_openvino), "pt2": (".pt2", export_pt2)}


def show_layers(given: argparse.Namespace) -> None:
    """Print the prunable layers and the channel groups; write a list of ratios to edit where asked for."""
    structure, _, _ = _analysed(given)
    layers = layers_of(structure, given.shared_input, given.layers)
    print(layer_listing(layers))
    print(f"\n{group_listing(structure.groups)}")
    if given.template is not None:
        write_ratio_list(given.template, [layer.name for layer in layers], [1.0] * len(layers))
        print(f"\nOne preserve ratio for each layer stands in {given.template}; prune with --ratios {given.template}")


def prune(given: argparse.Namespace) -> None:
    """Prune a network to one ratio, to a list of them, or to a share of its MACs."""
    structure, data, options = _analysed(given)
    target: Target = MacsShare(given.macs) if given.macs is not None else given.ratio
    if given.ratios is not None:
        names = [layer.name for layer in layers_of(structure, given.shared_input, given.layers)]
        target = parse_ratio_list(given.ratios, names)
    result = prune_channels(structure, data.batches, target, options=options, hooks=Hooks())
    write_result(command_of(given), structure.traced.net, data, result)


def search(given: argparse.Namespace) -> None:
    """Search for the ratios that are best under a budget, and prune to them."""
    structure, data, options = _analysed(given)
    budget = Budget(given.budget, given.share)
    reward = "accuracy" if data.task.metric is not None else "divergence"
    settings = SearchSettings(
        nb_rlouts=given.rollouts, swaps=min(SearchSettings.swaps, given.rollouts), reward_policy=reward
    )
    found = search_ratios(
        structure, data.batches, budget, task=data.task, method=given.method, options=options, settings=settings
    )
    result = prune_channels(structure, data.batches, found.ratios, options=options)
    write_result(command_of(given), structure.traced.net, data, result, budget=budget, found=found)


def export(given: argparse.Namespace) -> None:
    """Write a network for other runtimes, each file compared with PyTorch and timed."""
    device = device_named("cpu")
    net = load_net(given.net, given.weights, device)
    batch = load_data(given.data, given.task, 1, device).batches[0]
    files = []
    for name in given.to:
        suffix, write = FORMATS[name]
        files.append(write((given.out / "pruned_model").with_suffix(suffix), net, batch))
    if (given.out / "report.json").is_file():
        report.add(given.out / "report.json", "export", export_entries(files, batch_of(batch)))
        write_page(given.out)
    print(export_table(files, batch_of(batch)))


def compare_runs(given: argparse.Namespace) -> None:
    """Put several runs on one page."""
    print(compare(given.runs, given.out))
    print(f"{given.out} written")


def options_of(given: argparse.Namespace) -> PruningOptions:
    """Return the engine's options that the command line gives."""
    values = {name: getattr(given, name) for name in OPTIONS}
    options: PruningOptions = replace(PruningOptions(), **{**values, "ignore": tuple(given.ignore)})
    return options


def command_of(given: argparse.Namespace) -> Command:
    """Return what was asked, for the report."""
    hidden = ("run", "line", "command")
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(given).items() if name not in hidden}
    return Command(given.line, Path(given.net.rpartition(":")[0]).stem, settings, given.out)


def _analysed(given: argparse.Namespace) -> tuple[Structure, Data, PruningOptions]:
    """Return the network, analysed, the data, and the options without those that the analysis has taken in."""
    options = options_of(given)
    device = device_named(given.device)
    net = load_net(given.net, given.weights, device)
    data = load_data(given.data, given.task, given.batches, device)
    try:
        example = at_batch(data.batches[0], 2)
        structure = analyse(net, example, attention=options.attention, ignore=options.ignore)
    except UserError as error:
        if error.argument != "example_inputs":
            raise
        raise UserError(error.message, argument="batches") from error
    return structure, data, replace(options, ignore=())
