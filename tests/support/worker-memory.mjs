// What a worker in workerd holds, by its inspector: JavaScript's heap, WebAssembly memories, buffers; bytes, as one line of JSON.
// Run: node --experimental-websocket worker-memory.mjs PORT

const [{ webSocketDebuggerUrl }] = await (await fetch(`http://127.0.0.1:${process.argv[2]}/json`)).json();
const socket = new WebSocket(webSocketDebuggerUrl);
const answers = new Map();
let contextFound;
const context = new Promise((resolve) => {
  contextFound = resolve;
});
socket.onmessage = ({ data }) => {
  const { id, method, params, result, error } = JSON.parse(data);
  if (method === "Runtime.executionContextCreated") contextFound(params.context.uniqueId);
  if (id) answers.get(id)(error ? Promise.reject(new Error(error.message)) : result);
};
await new Promise((resolve, reject) => {
  socket.onopen = resolve;
  socket.onerror = reject;
});
const call = (method, params = {}) =>
  new Promise((resolve) => {
    const id = answers.size + 1;
    answers.set(id, resolve);
    socket.send(JSON.stringify({ id, method, params }));
  });

/** Bytes of all objects of a kind. */
async function bytesOf(kind, declaration) {
  const prototype = await call("Runtime.evaluate", { expression: `${kind}.prototype`, uniqueContextId: await context });
  const { objects } = await call("Runtime.queryObjects", { prototypeObjectId: prototype.result.objectId });
  const of = { objectId: objects.objectId, functionDeclaration: declaration, returnByValue: true };
  return (await call("Runtime.callFunctionOn", of)).result.value;
}

await call("Runtime.enable");
const memories = await bytesOf(
  "WebAssembly.Memory",
  "function () { return this.map(({ buffer }) => buffer.byteLength); }",
);
const heap = await call("Runtime.getHeapUsage");
console.log(JSON.stringify({ heap: heap.totalSize, used: heap.usedSize, buffers: heap.backingStorageSize, memories }));
socket.close();
