// The first page: is all well, and what is going on?

import { components } from './components';
import { board } from './panels';
import { behind, jobsDown, processes, rejected, stored, visibleToSql } from './pipeline';
import { byRoute, byStatus, failing, latency } from './platform';

export const overview = board(
  ['aion-overview', 'AION: overview', 'Whether all is well, and what is going on.'],
  [
    { title: 'Is all well?', panels: [processes(), jobsDown(), behind(), rejected()] },
    { title: 'What is going on?', panels: [byRoute(), byStatus(), latency(), failing(), stored(), visibleToSql()] },
    components,
  ],
);
