# Aliases only: run.py does the work.
.PHONY: help up test check lock clean

help:
	@echo "make up     python3 run.py"
	@echo "make test   python3 run.py test: every check and test"
	@echo "make check  the checks alone, in the .venv that run.py made"
	@echo "make lock   pins what pyproject.toml asks for; needs uv"
	@echo "make clean  removes .venv and caches, keeps var/"

up:
	python3 run.py

test:
	python3 run.py test

check:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

lock:
	uv pip compile --universal --python-version 3.11 --no-header pyproject.toml -o requirements.txt
	uv pip compile --universal --python-version 3.11 --no-header --group dev pyproject.toml -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
