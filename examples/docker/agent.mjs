// Stands for a coding agent: answers each line of its input with a line of JSON.

import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify({ node: process.version, uid: process.getuid(), heard: line }));
}
