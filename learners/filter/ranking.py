"""The learned ranking of a run: found once, and kept in a checkpoint."""

from torch import nn

from learners.context import RunContext
from pocketprune import Controller
from pocketprune.compression.learned import Evolution, learn_ranking
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import evaluate

RANKED = "filter_rank"  # the phase


def learn(run: RunContext, controller: Controller) -> None:
    """Learn what `ranking="learned"` needs, judged on the validation images; others need nothing."""
    if all(rule.ranking != "learned" for rule in controller.policy.rules):
        return
    checkpoints = run.checkpoints(RANKED)
    found = checkpoints.latest()
    if found is not None:
        with found.understood():
            saved = found.state["coefficients"]
            controller.planner.coefficients = {name: (scale, shift) for name, (scale, shift) in saved.items()}
        return

    def score(net: nn.Module) -> float:
        return -float(evaluate(net, run.dataset.val, run.config.data.batch_size_eval, device=run.device).loss)

    generations = run.config.filter_pruning.fp_generations
    run.say(f"Learning the ranking: {generations} networks scored on the validation images")
    with run.timed("search"):
        coefficients = learn_ranking(controller, score, Evolution(generations=generations, seed=run.config.run.seed))
    if is_main():
        checkpoints.save({"coefficients": {name: list(pair) for name, pair in coefficients.items()}}, 1)
