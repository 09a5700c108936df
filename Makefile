.PHONY: help test slow lint run clean

help:
	@echo "make test   what has to pass: lint, default tests   make slow  the minutes-long tests"
	@echo "make lint   style, format and types                 make run   ResNet-20 on digits, pruned"
	@echo "make clean  remove runs/ and caches"

test:
	bash scripts/run_tests.sh

slow:
	bash scripts/run_tests.sh -m slow

lint:
	bash scripts/lint.sh

run:
	bash scripts/run_local.sh --learner channel --cp_prune_option uniform

clean:
	rm -rf runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
