# Run 'make test' for everything that CI checks.

.PHONY: build test bench demo

build: ## the binary ./voicebridge
	go build -o voicebridge ./cmd/voicebridge

test: ## all checks and tests; installs what they need
	.ci/test

bench: ## benchmarks, beside libspeexdsp where it is installed
	.ci/bench

demo: ## one simulated call through the bridge
	go run ./cmd/voicebridge demo
