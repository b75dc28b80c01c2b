// Checks tree.json with a second implementation of docs/spec/tree.md, sections 3 and 4. It uses nothing but
// what Node has built in (version 20 or later):
//
//	node docs/spec/vectors/check-tree.mjs
//
// It prints one line and ends with 0, or names each difference and ends with 1.

import { readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';

const load = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), 'utf8'));
const hex = (b) => Buffer.from(b).toString('hex');
const un = (s) => Buffer.from(s ?? '', 'hex');

// parse decodes a frame without its length; it throws on what breaks the form.
function parse(b) {
  if (b.length < 33 || b.length > 65603) throw new Error('size');
  const f = { kind: b[0], topic: hex(b.subarray(1, 33)) };
  const rest = b.subarray(33);
  const ids = (least, most) => {
    const n = rest.length / 16;
    if (!Number.isInteger(n) || n < least || n > most) throw new Error('ids');
    if (n > 0) f.ids = Array.from({ length: n }, (_, i) => hex(rest.subarray(16 * i, 16 * i + 16)));
  };
  switch (f.kind) {
    case 1: {
      if (rest.length < 2 || rest[1] > 16) throw new Error('marks');
      const start = 2 + 2 * rest[1];
      const size = rest.length - start;
      if (size < 1 || size > 65536) throw new Error('message');
      if (rest[0] > 0) f.wave = rest[0];
      if (rest[1] > 0) f.cover = Array.from({ length: rest[1] }, (_, i) => rest.readUInt16BE(2 + 2 * i));
      f.data = hex(rest.subarray(start));
      break;
    }
    case 2: ids(1, 128); break;
    case 3: ids(0, 64); break;
    case 4: ids(0, 0); break;
    case 5: ids(1, 1); break;
  }
  return f;
}

function mark(peer, id) {
  const p = createHash('sha256').update(peer).digest().readBigUInt64BE(0);
  return Number((((p ^ id.readBigUInt64BE(0)) * 0x9e3779b97f4a7c15n) & 0xffffffffffffffffn) >> 48n);
}

const body = (text) => {
  const b = un(text);
  if (b.readUInt32BE(0) !== b.length - 4) throw new Error('length');
  return b.subarray(4);
};

const v = load('tree.json');
let wrong = 0;
const differs = (what) => { console.error(what); wrong++; };
for (const { name, frame, ...want } of v.frames) {
  const got = parse(body(frame));
  for (const key of new Set([...Object.keys(want), ...Object.keys(got)])) {
    if (JSON.stringify(got[key]) !== JSON.stringify(want[key])) differs(`${name}: ${key} is ${got[key]}, want ${want[key]}`);
  }
}
for (const m of v.marks) {
  if (mark(un(m.peer), un(m.id)) !== m.mark) differs(`mark of ${m.peer} in ${m.id}`);
}
for (const text of v.invalid) {
  let refused = false;
  try { parse(body(text)); } catch { refused = true; }
  if (!refused) differs(`${text} was not refused`);
}
if (wrong > 0) process.exit(1);
console.log(`tree.json: ${v.frames.length} frames, ${v.marks.length} marks, ${v.invalid.length} invalid`);
