# Serves the worker on port 8787: npx workerd serve examples/worker/worker.capnp

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "furcate", worker = .furcate)],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "furcate")]
);

const furcate :Workerd.Worker = (
  compatibilityDate = "2026-07-01",
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "furcate", esModule = embed "../../dist/furcate.js"),
    (name = "furcate/cpu.wasm", wasm = embed "../../dist/cpu.wasm"),
    (name = "furcate/text.wasm", wasm = embed "../../dist/text.wasm"),
    (name = "furcate/maze.gguf", data = embed "../../models/maze.gguf")
  ]
);
