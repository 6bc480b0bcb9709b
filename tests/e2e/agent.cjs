// An agent's gateway as others write one: Node's crypto, the WebSocket library of npm ("ws"), and the
// relay protocol without any extension.
//
//   node agent.cjs URL KEY.pem [ROLE]
//
// Orders come as JSON lines on stdin: {"do": "send", "id", "from", "to", "content"} (content in base
// 64, sent in chunks of 65,536 octets), {"do": "text", "text"}, {"do": "raw", "hex"}, {"do": "close"}.
// What happens is told as JSON lines on stdout: {"is": "open" | "control" | "mail" | "closed", ...}.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const readline = require("node:readline");
const WebSocket = require("ws");

const [url, keyFile, role = "inbound"] = process.argv.slice(2);
const key = crypto.createPrivateKey(fs.readFileSync(keyFile));
const raw = crypto.createPublicKey(key).export({ type: "spki", format: "der" }).subarray(-32);

function base32(octets) {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  let bits = "";
  for (const octet of octets) bits += octet.toString(2).padStart(8, "0");
  let text = "";
  for (let at = 0; at < bits.length; at += 5) {
    text += alphabet[parseInt(bits.slice(at, at + 5).padEnd(5, "0"), 2)];
  }
  return text;
}

const publicKeyBase32 = base32(raw);
const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

function frame(type, id, body) {
  const name = Buffer.from(id, "utf8");
  const head = Buffer.alloc(7);
  head[0] = 1;
  head[1] = type;
  head[2] = name.length;
  head.writeUInt32BE(body.length, 3);
  return Buffer.concat([head, name, body]);
}

const socket = new WebSocket(url, { rejectUnauthorized: false });
const streams = new Map();

socket.on("open", () => {
  tell({ is: "open", extensions: socket.extensions, protocol: socket.protocol });
  socket.send(JSON.stringify({ type: "auth_challenge_request", publicKeyBase32, sessionRole: role }));
});

socket.on("message", (data, isBinary) => {
  if (!isBinary) {
    const message = JSON.parse(data.toString("utf8"));
    tell({ is: "control", message });
    if (message.type === "auth_challenge") {
      const signature = crypto.sign(null, Buffer.from(message.challengeText, "utf8"), key);
      socket.send(JSON.stringify({
        type: "auth_challenge_response",
        publicKeyBase32,
        challengeId: message.challengeId,
        signatureBase64: signature.toString("base64"),
        sessionRole: role,
      }));
    }
    return;
  }
  const idLength = data[2];
  const id = data.subarray(7, 7 + idLength).toString("utf8");
  const body = data.subarray(7 + idLength);
  if (data[0] !== 1 || body.length !== data.readUInt32BE(3)) {
    tell({ is: "bad frame", hex: data.subarray(0, 64).toString("hex") });
    return;
  }
  if (data[1] === 1) {
    streams.set(id, { start: JSON.parse(body.toString("utf8")), chunks: [] });
  } else if (data[1] === 2) {
    streams.get(id).chunks.push(body);
  } else if (data[1] === 3) {
    const { start, chunks } = streams.get(id);
    streams.delete(id);
    tell({ is: "mail", id, start, content: Buffer.concat(chunks).toString("base64") });
  }
});

socket.on("close", (code, reason) => {
  tell({ is: "closed", code, reason: reason.toString("utf8") });
  process.exit(0);
});
socket.on("error", (error) => tell({ is: "error", error: String(error) }));

const orders = {
  send({ id, from, to, content }) {
    const octets = Buffer.from(content, "base64");
    const start = JSON.stringify({ mailFrom: from, rcptTo: to });
    socket.send(frame(1, id, Buffer.from(start, "utf8")));
    for (let at = 0; at < octets.length; at += 65536) {
      socket.send(frame(2, id, octets.subarray(at, at + 65536)));
    }
    socket.send(frame(3, id, Buffer.alloc(0)));
  },
  text({ text }) {
    socket.send(text);
  },
  raw({ hex }) {
    socket.send(Buffer.from(hex, "hex"));
  },
  close() {
    socket.close(1000, "client_stopped");
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  orders[order.do](order);
}).on("close", () => process.exit(0));
