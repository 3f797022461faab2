// Writes dashboards/*.json: `npm run generate`.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';

import { clickhouse } from './clickhouse';
import { overview } from './overview';
import { audit, pipeline } from './pipeline';
import { lifecycle, router } from './platform';
import { sql } from './sql';
import { webhooks } from './webhooks';

const folder = argv[2] ?? '..';
const boards = { overview, router, tasks: lifecycle, pipeline, webhooks, audit, sql, clickhouse };

for (const [name, builder] of Object.entries(boards)) {
  const board = builder.build();
  // Ids in the order of the page: the same source gives the same file.
  let id = 0;
  for (const panel of board.panels ?? []) {
    id += 1;
    panel.id = id;
  }
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(board, null, 2)}\n`);
}
