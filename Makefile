# Run 'make test' for everything that CI checks.

.PHONY: build test chaos bench demo

build: ## the binary ./voicebridge
	go build -o voicebridge ./cmd/voicebridge

test: ## all checks and tests; installs what they need
	.ci/test

chaos: ## the long chaos runs: instances and Redis die amid transfers
	.ci/chaos long

bench: ## benchmarks, and calls under load next to the yardsticks
	.ci/bench

demo: ## one simulated call through the bridge
	go run ./cmd/voicebridge demo
