# Run 'make test' before a change, and .ci/run for everything that CI checks.

.PHONY: build test fuzz chaos load demo

build: ## the binary ./voicebridge
	go build -o voicebridge ./cmd/voicebridge

test: ## all checks and tests; installs what they need
	.ci/test

fuzz: ## every fuzz target, for long
	.ci/fuzz long

chaos: ## the long chaos runs: instances and Redis die amid transfers
	.ci/chaos long

load: ## benchmarks, and calls under load next to the yardsticks
	.ci/bench

demo: ## one simulated call through the bridge
	go run ./cmd/voicebridge demo
