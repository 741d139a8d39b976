// What is said of members on which old keys may still stand after a shredding or a rotation.

import type { Session } from './session.js';

export function warnOldKeys(session: Session, paths: readonly string[]): void {
  for (const path of paths)
    session.log(
      'warn',
      `${path} may still hold keys that were shredded or rotated away, until it is back while a writer is open, ` +
        'or is replaced and destroyed',
    );
}
