// Which registers of the TPM a key is bound to: `tpm2:` and a selection as tpm2-tools write it, `tpm2:sha256:0,7`.
//
// Invariants
//   1. Only banks and registers of this grammar are ever handed to a program, whoever wrote them.

import { StoreError } from '../../format/errors.js';

const SCHEME = 'tpm2:';
/** Secure boot's state and keys: it stays when the kernel is updated, and changes when secure boot is switched off. */
export const DEFAULT_PCRS = 'sha256:7';
const SELECTION = /^(sha1|sha256|sha384|sha512):(\d|1\d|2[0-3])(,(\d|1\d|2[0-3]))*$/;
const BANKS_MAX = 4;

/** Whether `text` is a selection: banks joined by `+`, each with registers 0..23. */
export function isPcrSelection(text: string): boolean {
  const banks = text.split('+');
  return banks.length <= BANKS_MAX && banks.every((bank) => SELECTION.test(bank));
}

export const formatTpmUri = (pcrs: string): string => `${SCHEME}${pcrs}`;

/** The selection of a `tpm2:` URI, or undefined where it names none. Errors: E_USAGE. */
export function parseTpmUri(uri: string): string | undefined {
  const text = uri.startsWith(SCHEME) ? uri.slice(SCHEME.length) : null;
  if (text === '') return undefined;
  if (text !== null && isPcrSelection(text)) return text;
  throw new StoreError('E_USAGE', `'${uri}' names no registers of a TPM`, {
    next: `for example tpm2:${DEFAULT_PCRS} or tpm2:sha256:0,7`,
  });
}
