//! Another policy: endpoints that come, go and change.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Engine, IN_FLIGHT, Serving, now};
use crate::webhooks::{
    breaker::Breaker, client::Client, opened::Opened, pattern::any_matches, policy::Endpoint,
    rate::Rate, status::Counters,
};

impl Engine {
    /// Takes a policy, as a whole.
    pub(super) fn take_policy(&mut self, opened: &Opened) {
        let wanted: HashSet<_> =
            opened.entries.iter().map(|(endpoint, _)| Arc::clone(&endpoint.id)).collect();
        let gone = self.endpoints.iter().filter(|(_, one)| !wanted.contains(&one.config.id));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
        for (endpoint, client) in &opened.entries {
            self.put(endpoint, client.clone());
        }
        let share = (IN_FLIGHT / 2 / self.endpoints.len().max(1)).max(1);
        self.endpoints.values_mut().for_each(|one| one.share = share);
        tracing::info!(endpoints = self.endpoints.len(), "webhooks: the policy is followed");
        let certificates = opened.certificates.clone();
        self.statuses.change(|status| status.certificates = certificates);
        self.hear_switches();
        self.drop_unwanted_lanes();
        self.open_missing_lanes();
        self.policy_changed();
        for id in self.endpoints.keys().copied().collect::<Vec<_>>() {
            self.pump(id);
        }
        self.tell();
    }

    fn put(&mut self, config: &Arc<Endpoint>, client: Client) {
        let rate = config.rate.map(|rate| Rate::new(rate, now()));
        let (patterns, entry) = (config.pattern_texts(), config.fingerprint());
        if let Some(serving) = self.endpoints.values_mut().find(|one| one.config.id == config.id) {
            let config = Arc::clone(config);
            (serving.config, serving.client, serving.rate) = (config, client, rate);
            (serving.patterns, serving.entry) = (patterns, entry);
            // It may be what was wrong.
            (serving.breaker, serving.hold_until) = (Breaker::default(), 0);
            return;
        }
        let id = self.number() as u32;
        let serving = Serving {
            config: Arc::clone(config),
            patterns,
            entry,
            client,
            lanes: Vec::new(),
            turn: 0,
            in_flight: 0,
            share: 1,
            burying: 0,
            breaker: Breaker::default(),
            rate,
            hold_until: 0,
            disabled: None,
            error: None,
            counters: Counters::default(),
        };
        self.endpoints.insert(id, serving);
    }

    /// An endpoint that the policy has no more. Its cursors stay in their topic.
    fn remove(&mut self, id: u32) {
        let lag = self.lag_of(id);
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let name = Arc::clone(&endpoint.config.id);
        if lag > 0 {
            tracing::warn!(
                endpoint = %name,
                "webhooks: the policy has {name} no more, which still had {lag} events to get: an entry with \
                 that id gets them"
            );
        }
        for uid in endpoint.lanes.clone() {
            self.store(uid);
            self.drop_lane(uid);
        }
        self.endpoints.remove(&id);
    }

    /// Cursors of topics that a changed entry doesn't match any more. They stay in their topic, too.
    fn drop_unwanted_lanes(&mut self) {
        let catalog = Arc::clone(&self.settings.catalog);
        let is_unwanted = |working: &super::lane::Working| {
            let endpoint = self.endpoints.get(&working.endpoint);
            let source = self.sources.get(&working.source);
            let wanted = endpoint.zip(source).is_some_and(|(endpoint, source)| {
                any_matches(&endpoint.config.patterns, &source.stream.topic, &catalog)
            });
            !wanted
        };
        let unwanted = self.lanes.iter().filter(|(_, working)| is_unwanted(working));
        let unwanted: Vec<_> = unwanted.map(|(uid, _)| *uid).collect();
        self.tell_left_behind(&unwanted);
        for uid in unwanted {
            self.store(uid);
            self.drop_lane(uid);
        }
    }

    /// Says which topics had events for an endpoint that gets them no more.
    fn tell_left_behind(&self, unwanted: &[u64]) {
        let mut lags: BTreeMap<(Arc<str>, Arc<str>), u64> = BTreeMap::new();
        for uid in unwanted {
            let Some(working) = self.lanes.get(uid) else { continue };
            let Some(endpoint) = self.endpoints.get(&working.endpoint) else { continue };
            let Some(source) = self.sources.get(&working.source) else { continue };
            let place = (Arc::clone(&endpoint.config.id), Arc::clone(&source.stream.topic));
            *lags.entry(place).or_default() += self.lag_of_lane(*uid);
        }
        for ((name, topic), lag) in lags.into_iter().filter(|(_, lag)| *lag > 0) {
            tracing::warn!(
                endpoint = %name,
                "webhooks: {name} wants {topic} no more, of which it still had {lag} events to get: a pattern that \
                 matches it gets them"
            );
        }
    }
}
