// Seals with @hpke/core, for Python to open: {"publicKey", "info", "plaintext"} on stdin, the message in hex on stdout.
import { readFileSync } from "node:fs";
import { bytes, hex, seal } from "./suite.mjs";

const input = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(hex(await seal(bytes(input.publicKey), bytes(input.info), bytes(input.plaintext))));
