// The messages of docs/spec/rooms.md and docs/spec/identity.md as tables, and a
// strict codec over them. A value is an object whose fields have the names of
// the tables: bytes in hexadecimal, numbers as numbers or decimal text, absent
// fields left out.

export class Malformed extends Error {}
export class Unsupported extends Error {}

const max64 = 2n ** 64n - 1n;
const hex = (b) => Buffer.from(b).toString('hex');
const un = (s) => Buffer.from(s, 'hex');
const fail = (why) => { throw new Malformed(why); };

// Types of fields: wire type, how to write, how to read.
const varint = (most = max64) => ({ wire: 0, put: (v) => BigInt(v), get: (n) => (n >= 1n && n <= BigInt(most) ? (n < 2n ** 53n ? Number(n) : String(n)) : fail('varint out of range')) });
const flag = { wire: 0, put: () => 1n, get: (n) => n === 1n || fail('flag') };
const fixed64 = { wire: 1, put: (v) => BigInt(v), get: (n) => (n > 0n ? String(n) : fail('zero')) };
const time = { wire: 1, put: (v) => BigInt(v), get: (n) => (n > 0n && n < 2n ** 48n ? Number(n) : fail('time')) };
const bytes = (most) => ({ wire: 2, put: un, get: (b) => (b.length <= most ? hex(b) : fail('too long')) });
const exact = (n) => ({ wire: 2, put: un, get: (b) => (b.length === n ? hex(b) : fail('length')) });
const id = (n = 32) => ({ wire: 2, put: un, get: (b) => (b.length === n && b.some((c) => c) ? hex(b) : fail('id')) });
const text = (most) => ({ wire: 2, put: (s) => Buffer.from(s, 'utf8'), get: (b) => {
  const s = b.toString('utf8');
  return b.length <= most && Buffer.from(s, 'utf8').equals(b) && !s.includes('\0') ? s : fail('text');
} });
const inner = (s, most = 65536) => ({ wire: 2, put: (v) => encode(s, v), get: (b) => (b.length <= most ? decode(s, b) : fail('too long')) });
const many = (type, most) => ({ ...type, many: most });

const message = (...fields) => ({ fields });
const versioned = (...fields) => ({ fields, versioned: true });
const extended = (s) => ({ ...s, extended: true });

// --- the codec --------------------------------------------------------------

function putVarint(v) {
  const out = [];
  for (; v >= 128n; v >>= 7n) out.push(Number(v & 127n) | 128);
  return Buffer.from([...out, Number(v)]);
}

function putField(num, type, value) {
  const tag = putVarint(BigInt(num * 8 + type.wire)), v = type.put(value);
  if (type.wire === 0) return Buffer.concat([tag, putVarint(v)]);
  if (type.wire === 2) return Buffer.concat([tag, putVarint(BigInt(v.length)), v]);
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(v);
  return Buffer.concat([tag, b]);
}

const isZero = (v) => v === undefined || v === null || v === '' || v === 0 || v === '0' || v === false;

export function encode(s, value) {
  const out = s.versioned ? [Buffer.from([8, 1])] : [];
  for (const [num, name, type] of s.fields) {
    if (type.many) for (const v of value[name] ?? []) out.push(putField(num, type, v));
    else if (!isZero(value[name])) {
      const field = putField(num, type, value[name]);
      if (type.wire !== 2 || type.put(value[name]).length > 0) out.push(field);
    }
  }
  if (s.extended && value.extensions) out.push(un(value.extensions));
  return Buffer.concat(out);
}

class Reader {
  constructor(b) { this.b = b; this.at = 0; }
  varint() {
    let v = 0n;
    for (let i = 0; ; i++) {
      if (this.at >= this.b.length || i >= 10) fail('varint cut off');
      const c = this.b[this.at++];
      v |= BigInt(c & 127) << BigInt(7 * i);
      if (c < 128) {
        if (i > 0 && c === 0 || v > max64) fail('varint not in its shortest form');
        return v;
      }
    }
  }
  take(n) {
    if (n > this.b.length - this.at) fail('cut off');
    this.at += n;
    return this.b.subarray(this.at - n, this.at);
  }
}

export function decode(s, b) {
  const r = new Reader(b), out = {};
  let last = 0, first = true;
  while (r.at < b.length) {
    const start = r.at, tag = r.varint(), num = Number(tag >> 3n), wire = Number(tag & 7n);
    if (num < 1 || num > 127 || num < last) fail('field number');
    if (s.versioned && first !== (num === 1)) fail('version first and once');
    const field = s.fields.find(([n]) => n === num);
    if (first && s.versioned) {
      if (wire !== 0) fail('version');
      const v = r.varint();
      if (v === 0n || v > 255n) fail('version');
      if (v !== 1n) throw new Unsupported('version ' + v);
    } else if (field) {
      const [, name, type] = field;
      if (wire !== type.wire || num === last && !type.many) fail('wire type or repeated field');
      const value = type.get(readValue(r, wire));
      if (!type.many) out[name] = value;
      else if ((out[name] ??= []).push(value) > type.many) fail('too many');
    } else if (s.extended && num >= 100 && wire === 2) {
      readValue(r, wire);
      out.extensions = (out.extensions ?? '') + hex(b.subarray(start, r.at));
      if (out.extensions.length > 1024) fail('extensions too long');
    } else fail('unknown field ' + num);
    last = num;
    first = false;
  }
  if (s.versioned && first) fail('no version');
  return out;
}

function readValue(r, wire) {
  if (wire === 0) return r.varint();
  if (wire === 1) return r.take(8).readBigUInt64LE();
  if (wire !== 2) fail('wire type');
  const n = r.varint();
  if (n === 0n || n > 65536n) fail('length');
  return r.take(Number(n));
}

// --- the tables -------------------------------------------------------------

export const certificate = versioned([2, 'account', id()], [3, 'device', id()], [4, 'not_before', time], [5, 'not_after', time], [6, 'signature', exact(64)]);
const cert = inner(certificate, 192);
const attachment = message([1, 'hash', exact(32)], [2, 'size', varint(2n ** 40n)]);
const attachments = many(inner(attachment, 64), 16);

export const header = extended(versioned(
  [2, 'kind', varint(255)], [3, 'room', id()], [4, 'certificate', cert], [5, 'hlc', fixed64], [6, 'device_seq', varint(2n ** 63n - 1n)],
  [7, 'previous', id()], [8, 'parents', many(id(), 4)], [9, 'ref', id()], [10, 'epoch', varint(2n ** 32n - 1n)], [11, 'expires', time],
  [12, 'body_hash', exact(32)], [13, 'body_length', varint(48 << 10)], [14, 'attachments', attachments],
));

export const eventHead = message([1, 'header', bytes(1536)], [2, 'signature', exact(64)]);
export const event = message([1, 'header', bytes(1536)], [2, 'signature', exact(64)], [3, 'body', bytes(48 << 10)]);
export const sealed = versioned(
  [2, 'flags', varint(255)], [3, 'hlc', fixed64], [4, 'nonce', exact(24)], [5, 'head', bytes(1536 + 80 + 16)],
  [6, 'body', bytes((48 << 10) + 16)], [7, 'body_hash', exact(32)], [8, 'signature', exact(64)],
);

const file = message([1, 'name', text(255)], [2, 'media_type', text(127)], [3, 'key', exact(32)]);
const policy = extended(message(
  [1, 'rate_per_minute', varint(6000)], [2, 'burst', varint(1000)], [3, 'history_days', varint(3650)], [4, 'history_events', varint(1000000)],
  [5, 'share_history', flag], [6, 'post_role', varint(4)], [7, 'invite_role', varint(4)], [8, 'expiry_seconds', varint(315360000)],
));

export const bodies = {
  1: extended(message([1, 'text', text(16 << 10)], [2, 'mentions', many(id(), 64)], [3, 'files', many(inner(file, 430), 16)], [4, 'style', varint(2)])),
  2: extended(message([1, 'text', text(16 << 10)], [2, 'mentions', many(id(), 64)])),
  3: message([1, 'reason', text(512)]),
  4: message([1, 'symbol', text(32)], [2, 'remove', flag]),
  5: extended(message([1, 'nick', text(64)], [2, 'about', text(512)])),
  6: message(),
  7: message([1, 'reason', text(512)]),
  8: message([1, 'text', text(1024)]),
  9: message([1, 'account', id()], [2, 'until', time], [3, 'reason', text(512)], [4, 'lift', flag]),
  10: message([1, 'box', bytes(256)]),
  32: message([1, 'name', text(256)], [2, 'topic', id()], [3, 'policy', inner(policy, 576)], [4, 'network', text(64)]),
  33: message([1, 'account', id()], [2, 'role', varint(4)], [3, 'invite', id(16)]),
  34: message([1, 'account', id()], [2, 'reason', text(512)], [3, 'epoch', varint(2n ** 32n - 1n)], [4, 'topic', id()],
    [5, 'marks', many(inner(message([1, 'device', id()], [2, 'seq', varint(2n ** 63n - 1n)], [3, 'last', id()]), 96), 16)]),
  35: message([1, 'account', id()], [2, 'role', varint(4)]),
  36: policy,
  37: message([1, 'epoch', varint(2n ** 32n - 1n)], [2, 'topic', id()]),
  38: message([1, 'invite', id(16)]),
  128: message([1, 'stopped', flag]),
  129: message([1, 'state', varint(3)]),
};

export const content = extended(versioned(
  [2, 'id', id(16)], [3, 'conversation', id()], [4, 'kind', varint(255)], [5, 'sent_at', time], [6, 'device_seq', varint(2n ** 63n - 1n)],
  [7, 'acks', many(id(16), 256)], [8, 'expires', time], [9, 'ref', id(16)], [10, 'body', bytes(48 << 10)], [11, 'attachments', attachments],
));

export const dmBodies = {
  66: message([1, 'room', id()], [2, 'epoch', varint(2n ** 32n - 1n)], [3, 'secret', id()]),
  67: message([1, 'device_list', bytes(8 << 10)], [2, 'prekey_record', bytes(8 << 10)],
    [3, 'restart', inner(message([1, 'prekey_id', varint(2n ** 32n - 1n)], [2, 'prekey', id()], [3, 'kem', exact(1184)]), 1248)]),
  68: message([1, 'invite', bytes(4096)]),
  70: message([1, 'nick', text(64)], [2, 'token', id(16)], [3, 'text', text(512)]),
  71: message([1, 'room', id()], [2, 'events', many(bytes(48 << 10), 64)]),
  72: message([1, 'room', id()], [2, 'ids', many(id(), 64)], [3, 'secrets', flag]),
  73: message([1, 'room', id()], [2, 'token', id(16)], [3, 'code', varint(255)]),
};

const limits = message([1, 'topics', varint(2n ** 32n - 1n)], [2, 'events_per_second', varint(2n ** 32n - 1n)], [3, 'bytes_per_second', varint(2n ** 32n - 1n)],
  [4, 'mirror_events', varint(2n ** 32n - 1n)], [5, 'mirror_seconds', varint(2n ** 32n - 1n)]);

export const frames = {
  DMHello: [1, extended(versioned([2, 'certificate', cert], [3, 'nick', text(64)], [4, 'capabilities', many(text(64), 32)]))],
  DMData: [2, message([1, 'envelope', bytes(60 << 10)])],
  DMAck: [3, message([1, 'kind', varint(2)], [2, 'ids', many(id(16), 256)])],
  DMReject: [4, message([1, 'reason', varint(255)], [2, 'envelope', id()])],
  RelayAttach: [1, message([1, 'want', varint(2)], [2, 'lease', varint(3600)], [3, 'nonce', exact(32)],
    [4, 'topics', many(inner(message([1, 'topic', id()], [2, 'proof', exact(64)]), 128), 256)])],
  RelayAttached: [2, message([1, 'code', varint(255)],
    [2, 'grants', many(inner(message([1, 'topic', id()], [2, 'code', varint(255)], [3, 'lease', varint(3600)]), 64), 256)],
    [3, 'limits', inner(limits, 64)], [4, 'detail', text(512)])],
  RelayDetach: [3, message([1, 'topics', many(id(), 256)])],
  MailboxDeposit: [1, message([1, 'mailbox', id()], [2, 'keep', varint(14 * 86400)], [3, 'envelope', bytes(60 << 10)])],
  MailboxReceipt: [2, message([1, 'code', varint(255)], [2, 'deposit', id()], [3, 'expires', time], [4, 'detail', text(512)],
    [5, 'signature', id(64)])],
  MailboxCollect: [3, message([1, 'mailbox', id()], [2, 'nonce', exact(32)], [3, 'proof', id(64)], [4, 'after', id()], [5, 'limit', varint(64)])],
  MailboxItems: [4, message([1, 'code', varint(255)],
    [2, 'items', many(inner(message([1, 'deposit', id()], [2, 'envelope', bytes(60 << 10)]), (60 << 10) + 48), 64)], [3, 'more', flag])],
  MailboxDelete: [5, message([1, 'mailbox', id()], [2, 'nonce', exact(32)], [3, 'proof', id(64)], [4, 'deposits', many(id(), 256)])],
};

const mailbox = message([1, 'id', id()], [2, 'relay', id()], [3, 'address', text(256)]);
export const records = {
  device_list: versioned([2, 'account', id()], [3, 'sequence', varint(2n ** 63n - 1n)], [4, 'issued', time], [5, 'expires', time],
    [6, 'devices', many(cert, 16)], [7, 'revoked', many(id(), 16)], [15, 'signature', exact(64)]),
  prekey_record: versioned([2, 'certificate', cert], [3, 'sequence', varint(2n ** 63n - 1n)], [4, 'issued', time], [5, 'expires', time],
    [6, 'agreement', id()], [7, 'prekey_id', varint(2n ** 32n - 1n)], [8, 'prekey', id()], [9, 'kem', exact(1184)], [10, 'envelope', id()],
    [11, 'mailboxes', many(inner(mailbox, 336), 4)], [15, 'signature', exact(64)]),
};

export const links = {
  contact: versioned([2, 'certificate', cert], [3, 'nick', text(64)], [4, 'addresses', many(text(256), 8)], [5, 'token', id(16)]),
  invite: versioned([2, 'room', id()], [3, 'inviter', cert], [4, 'token', id(16)], [5, 'expires', time], [6, 'name', text(256)],
    [7, 'addresses', many(text(256), 8)], [8, 'reusable', flag], [9, 'doors', many(inner(message([1, 'account', id()], [2, 'device', id()]), 72), 3)], [15, 'signature', exact(64)]),
};
