// Ed25519 verification by ZIP 215 (https://zips.z.cash/zip-0215) with big
// integers: slow and plain, for checking vectors only. Node's own verification
// follows another rule in edge cases.

import { createHash } from 'node:crypto';

const p = 2n ** 255n - 19n;
const order = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (a) => ((a % p) + p) % p;

function power(base, exponent) {
  let out = 1n;
  for (let b = mod(base), e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) out = (out * b) % p;
    b = (b * b) % p;
  }
  return out;
}

const inverse = (a) => power(a, p - 2n);
const d = mod(-121665n * inverse(121666n));
const rootOfMinusOne = power(2n, (p - 1n) / 4n);

// Points are [X, Y, Z, T] with x = X/Z, y = Y/Z, xy = T/Z.
const identity = [0n, 1n, 1n, 0n];

function add([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = mod((y1 - x1) * (y2 - x2)), b = mod((y1 + x1) * (y2 + x2));
  const c = mod(2n * t1 * t2 * d), dd = mod(2n * z1 * z2);
  const e = b - a, f = dd - c, g = dd + c, h = b + a;
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

function multiply(n, point) {
  let out = identity;
  for (let q = point, k = n; k > 0n; k >>= 1n) {
    if (k & 1n) out = add(out, q);
    q = add(q, q);
  }
  return out;
}

const littleEndian = (b) => BigInt('0x' + (Buffer.from(b).reverse().toString('hex') || '0'));

// decompress takes every encoding for which there is a point: y need not be
// reduced, and x = 0 may carry the sign bit.
function decompress(bytes) {
  const n = littleEndian(bytes), sign = n >> 255n, y = mod(n & (2n ** 255n - 1n));
  const u = mod(y * y - 1n), v = mod(d * y * y + 1n);
  let x = mod(u * power(v, 3n) * power(u * power(v, 7n), (p - 5n) / 8n));
  const check = mod(v * x * x);
  if (check === mod(-u)) x = mod(x * rootOfMinusOne);
  else if (check !== u) return null;
  if ((x & 1n) !== sign) x = mod(-x);
  return [x, y, 1n, mod(x * y)];
}

const base = decompress(Buffer.from('58' + '66'.repeat(31), 'hex'));

// verifyZIP215 says whether [8][S]B = [8]R + [8][k]A, with S below the order.
export function verifyZIP215(key, message, signature) {
  if (key.length !== 32 || signature.length !== 64) return false;
  const a = decompress(key), r = decompress(signature.subarray(0, 32)), s = littleEndian(signature.subarray(32));
  if (!a || !r || s >= order) return false;
  const digest = createHash('sha512').update(signature.subarray(0, 32)).update(key).update(message).digest();
  const k = littleEndian(digest) % order;
  const [x, y, z] = multiply(8n, add(multiply(s, base), multiply(order * 8n - 1n, add(r, multiply(k, a)))));
  return x === 0n && y === z;
}
