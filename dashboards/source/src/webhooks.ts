// How endpoints are reached, one series each; and what becomes of commands from outside.

import { board, graph, number } from './panels';

const ON = '{instance=~"$instance"}';
const attempts = (outcome: string) =>
  `sum by (endpoint) (rate(aion_webhook_attempts_total{instance=~"$instance",outcome="${outcome}"}[$__rate_interval]))`;

export const webhooks = board(
  ['aion-webhooks', 'AION: webhooks', 'What each endpoint got, what waits for it, what was given up; and commands from outside.'],
  [
    {
      title: 'Endpoints',
      panels: [
        number({
          title: 'Not reached',
          description: 'Endpoints that fail. 0 is good.',
          unit: 'short',
          queries: [[`sum(aion_webhook_state{instance=~"$instance",state="failing"})`, 'failing']],
          alert: 'AionWebhookBehind',
          thresholds: { bad: 1 },
        }),
        number({
          title: 'Given up',
          description: 'Events that became dead letters in the last hour. 0 is good.',
          unit: 'short',
          queries: [[`sum(increase(aion_webhook_dead_letters_total${ON}[1h]))`, 'given up']],
          alert: 'AionWebhookGivenUp',
          thresholds: { bad: 1 },
        }),
        number({
          title: 'Lost',
          description: 'Events that the log dropped before they were delivered, since the process started. 0 is good.',
          unit: 'short',
          queries: [[`sum(aion_webhook_lost_total${ON})`, 'lost']],
          alert: 'AionWebhookGivenUp',
          thresholds: { bad: 1 },
        }),
        number({
          title: 'Under way',
          description: 'Deliveries under way.',
          unit: 'short',
          alert: 'AionWebhookBehind',
          queries: [[`sum(aion_webhook_in_flight${ON})`, 'under way']],
        }),
        graph({
          title: 'Delivered',
          description: 'Attempts a second that were answered with success, by endpoint.',
          unit: 'reqps',
          alert: 'AionWebhookBehind',
          queries: [[attempts('delivered'), '{{endpoint}}']],
        }),
        graph({
          title: 'Failed attempts',
          description: 'Attempts a second that failed, by endpoint. They are made again.',
          unit: 'reqps',
          queries: [[attempts('failed'), '{{endpoint}}']],
          alert: 'AionWebhookBehind',
        }),
        graph({
          title: 'Not delivered yet',
          description: 'Events that an endpoint has not got, and of these the ones that were tried in vain.',
          unit: 'short',
          queries: [
            [`sum by (endpoint) (aion_webhook_lag_events${ON})`, 'waiting for {{endpoint}}'],
            [`sum by (endpoint) (aion_webhook_failing_events${ON})`, 'failing for {{endpoint}}'],
          ],
          alert: 'AionWebhookBehind',
          thresholds: { bad: 10000 },
        }),
        graph({
          title: 'Oldest that fails',
          description: 'Seconds since the oldest event that fails was first tried, by endpoint.',
          unit: 's',
          queries: [[`max by (endpoint) (aion_webhook_oldest_failing_seconds${ON})`, '{{endpoint}}']],
          alert: 'AionWebhookBehind',
          thresholds: { bad: 900 },
        }),
        graph({
          title: 'How long attempts take',
          description: 'Time to the end of the answer: 95 of a hundred attempts are quicker, by endpoint.',
          unit: 's',
          alert: 'AionWebhookBehind',
          queries: [
            [
              `histogram_quantile(0.95, sum by (endpoint, le) (rate(aion_webhook_attempt_duration_seconds_bucket${ON}[$__rate_interval])))`,
              '{{endpoint}}',
            ],
          ],
        }),
        graph({
          title: 'State',
          description: 'The state that each endpoint is in: live is good.',
          unit: 'short',
          queries: [[`max by (endpoint, state) (aion_webhook_state${ON}) > 0`, '{{endpoint}} {{state}}']],
          alert: 'AionWebhookBehind',
        }),
      ],
    },
    {
      title: 'Commands from outside',
      panels: [
        number({
          title: 'Commands that wait',
          description: 'Commands that were accepted and that the control plane has not answered for good.',
          unit: 'short',
          queries: [[`max(aion_commands_open${ON})`, 'open']],
          alert: 'AionCommandsWait',
        }),
        number({
          title: 'Oldest command',
          description: 'Seconds since the oldest command that waits was accepted. Seconds are good.',
          unit: 's',
          queries: [[`max(aion_commands_oldest_open_seconds${ON})`, 'oldest']],
          alert: 'AionCommandsWait',
          thresholds: { warning: 60, bad: 600 },
        }),
        number({
          title: 'Commands refused for good',
          description: 'Commands that the control plane said no to, in the last hour.',
          unit: 'short',
          queries: [
            [`sum(increase(aion_commands_ended_total{instance=~"$instance",outcome="failed"}[1h]))`, 'failed'],
          ],
        }),
        number({
          title: 'Records that are no commands',
          description: 'Records in the log of commands that the gateway did not write. 0 is good.',
          unit: 'short',
          queries: [[`max(aion_commands_ignored_total${ON})`, 'passed over']],
          thresholds: { bad: 1 },
        }),
        graph({
          title: 'Requests with commands',
          description: 'Requests a second, by the status that they were answered with.',
          unit: 'reqps',
          queries: [
            [
              `sum by (status) (rate(aion_inbound_requests_total${ON}[$__rate_interval])) or label_replace(vector(0), "status", "none", "", "")`,
              '{{status}}',
            ],
          ],
          stacked: true,
        }),
        graph({
          title: 'Requests that were not authenticated',
          description: 'Requests a second with commands that were not authenticated, by what was wrong with them.',
          unit: 'reqps',
          queries: [
            [
              `sum by (cause) (rate(aion_inbound_unauthenticated_total${ON}[$__rate_interval])) or label_replace(vector(0), "cause", "none", "", "")`,
              '{{cause}}',
            ],
          ],
          stacked: true,
        }),
        graph({
          title: 'Commands carried out',
          description: 'Commands a second by how they ended, and attempts that have to be made again.',
          unit: 'ops',
          queries: [
            [`sum by (outcome) (rate(aion_commands_ended_total${ON}[$__rate_interval]))`, '{{outcome}}'],
            [`sum(rate(aion_command_retries_total${ON}[$__rate_interval]))`, 'made again'],
          ],
          alert: 'AionCommandsWait',
        }),
      ],
    },
  ],
);
