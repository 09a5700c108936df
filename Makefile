.PHONY: help test slow lint run clean

help:
	@echo "make test   lint and the default tests      make slow  the minutes-long tests"
	@echo "make lint   ruff alone                      make run   ResNet-20 on digits, pruned"
	@echo "make clean  remove runs/ and caches"

test:
	bash scripts/run_tests.sh

slow:
	bash scripts/run_tests.sh -m slow

lint:
	bash -c '. scripts/environment.sh; find_python dev; "$$python" -m ruff check . && "$$python" -m ruff format --check .'

run:
	bash scripts/run_local.sh --learner channel --cp_prune_option uniform

clean:
	rm -rf runs .pytest_cache .ruff_cache .hypothesis
