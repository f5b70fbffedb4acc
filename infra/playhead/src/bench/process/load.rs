//! The Kafka events that `process` is measured with.

use super::super::viewing::Viewing;
use anyhow::Result;
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

const PARTITIONS: u64 = 8;
const TOPIC: &str = "playback-events";

/// What a batch looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) struct Shape {
    /// Records in a batch, one event each.
    pub(in crate::bench) records: usize,
    /// New events of a session in a batch.
    pub(in crate::bench) fold: f64,
    /// The share of records that repeat one of this or the previous batch.
    pub(in crate::bench) duplicates: f64,
    /// How many of the records are of one and the same session, beside the others.
    pub(in crate::bench) hot: usize,
    /// Whose events they are.
    pub(in crate::bench) sessions: Sessions,
}

/// Which sessions a batch has events of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Sessions {
    /// The same in every batch, but for those that play to the end, which new ones follow.
    Playing,
    /// New ones in every batch: no view exists.
    New,
    /// The same in every batch: all views exist after the first.
    Known,
}

/// Makes one batch after the other.
#[derive(Debug)]
pub(in crate::bench) struct Load {
    shape: Shape,
    viewings: Vec<Viewing>,
    /// The one that has [`Shape::hot`] records in every batch.
    hot: Option<Viewing>,
    /// The records of the batch before.
    before: Vec<Record>,
    next_offset: u64,
    now: u64,
    rng: StdRng,
}

#[derive(Debug, Clone)]
struct Record {
    session_id: String,
    value: String,
}

impl Load {
    /// The same seed makes the same viewings. `now` is the time of receipt, Unix milliseconds.
    pub(in crate::bench) fn new(shape: Shape, seed: u64, now: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { shape, viewings: Vec::new(), hot: None, before: Vec::new(), next_offset: 0, now, rng }
    }

    /// The next batches.
    pub(in crate::bench) fn batches(&mut self, count: usize) -> Result<Vec<Bytes>> {
        (0..count).map(|_| self.batch()).collect()
    }

    /// How many sessions a batch has events of.
    pub(in crate::bench) fn sessions(&self) -> usize {
        let others = self.new_records().saturating_sub(self.shape.hot) as f64 / self.shape.fold;
        (others.round() as usize).max(1) + self.hot.iter().len()
    }

    fn new_records(&self) -> usize {
        (self.shape.records as f64 * (1.0 - self.shape.duplicates)).round() as usize
    }

    fn batch(&mut self) -> Result<Bytes> {
        self.take_seats()?;
        self.viewings.shuffle(&mut self.rng);
        let mut records = Vec::with_capacity(self.shape.records);
        let (seats, new) = (self.viewings.len(), self.new_records());
        // One event of each, then the second: the sessions are interleaved, each in its order. The
        // hot one is between them.
        let mut turns = 0..;
        for index in 0..new {
            let is_hot = index * self.shape.hot / new != (index + 1) * self.shape.hot / new;
            let viewing = match &mut self.hot {
                Some(hot) if is_hot => hot,
                _ => &mut self.viewings[turns.next().unwrap_or_default() % seats],
            };
            if viewing.is_over() {
                viewing.rewind();
            }
            let event = viewing.next(&mut self.rng)?;
            let value = BASE64.encode(viewing.envelope(vec![event], self.now).encode());
            records.push(Record { session_id: viewing.session_id().to_string(), value });
        }
        let before = std::mem::replace(&mut self.before, records.clone());
        for _ in self.new_records()..self.shape.records {
            let (old, own) = (before.len(), records.len());
            let chosen = self.rng.random_range(0..old + own);
            let copy = if chosen < old { before[chosen].clone() } else { records[chosen - old].clone() };
            records.insert(self.rng.random_range(0..=own), copy);
        }
        self.now += 1_000;
        Ok(self.payload(&records))
    }

    /// Lets new viewings begin where they are needed.
    fn take_seats(&mut self) -> Result<()> {
        match self.shape.sessions {
            Sessions::Playing => self.viewings.retain(|viewing| !viewing.is_over()),
            Sessions::New => self.viewings.clear(),
            Sessions::Known => {}
        }
        if self.shape.hot > 0 && self.hot.is_none() {
            self.hot = Some(Viewing::begin(&mut self.rng, self.now)?);
        }
        while self.viewings.len() + self.hot.iter().len() < self.sessions() {
            self.viewings.push(Viewing::begin(&mut self.rng, self.now)?);
        }
        Ok(())
    }

    /// The event that Lambda would pass on: AWS, "Using Lambda with Amazon MSK".
    fn payload(&mut self, records: &[Record]) -> Bytes {
        let mut partitions = vec![String::new(); PARTITIONS as usize];
        for Record { session_id, value } in records {
            let mut hasher = DefaultHasher::new();
            session_id.hash(&mut hasher);
            let partition = hasher.finish() % PARTITIONS;
            let list = &mut partitions[partition as usize];
            let comma = if list.is_empty() { "" } else { "," };
            let (offset, now, key) = (self.next_offset, self.now, BASE64.encode(session_id));
            self.next_offset += 1;
            // Writing to a string cannot fail.
            let _ = write!(
                list,
                r#"{comma}{{"topic":"{TOPIC}","partition":{partition},"offset":{offset},"timestamp":{now},"timestampType":"CREATE_TIME","key":"{key}","value":"{value}","headers":[]}}"#
            );
        }
        let lists = partitions.iter().enumerate().filter(|(_, list)| !list.is_empty());
        let lists: Vec<String> = lists.map(|(number, list)| format!(r#""{TOPIC}-{number}":[{list}]"#)).collect();
        format!(
            r#"{{"eventSource":"aws:kafka","eventSourceArn":"arn:aws:kafka:us-east-1:000000000000:cluster/playhead/00000000-0000-4000-8000-000000000000-1","bootstrapServers":"b-1.playhead.kafka.us-east-1.amazonaws.com:9098","records":{{{}}}}}"#,
            lists.join(",")
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda::batch::Batch;
    use playback::envelope::Envelope;
    use std::collections::{BTreeMap, BTreeSet};

    const SHAPE: Shape = Shape { records: 300, fold: 3.0, duplicates: 0.0, hot: 0, sessions: Sessions::Playing };

    fn sessions(batch: &Bytes) -> BTreeMap<String, Vec<u16>> {
        let mut found = BTreeMap::<String, Vec<u16>>::new();
        for record in Batch::parse(batch).unwrap().records {
            let envelope = Envelope::decode(&record.value.unwrap()).unwrap();
            found.entry(envelope.session_id.to_string()).or_default().push(envelope.events[0].seq);
        }
        found
    }

    #[test]
    fn batch_has_the_wanted_fold_and_sessions_go_on() {
        let mut load = Load::new(SHAPE, 1, 1_790_000_000_000);
        let (first, second) = (sessions(&load.batch().unwrap()), sessions(&load.batch().unwrap()));
        assert_eq!(first.len(), 100);
        assert!(first.values().all(|seqs| *seqs == [0, 1, 2]));
        assert!(second.values().all(|seqs| *seqs == [3, 4, 5]));
        assert!(first.keys().eq(second.keys()));
    }

    #[test]
    fn hot_session_has_its_records_in_every_batch() {
        let mut load = Load::new(Shape { hot: 200, ..SHAPE }, 1, 1_790_000_000_000);
        for batch in 0..2 {
            let sessions = sessions(&load.batch().unwrap());
            let hot: Vec<_> = sessions.values().filter(|seqs| seqs.len() == 200).collect();
            assert_eq!(hot.len(), 1);
            assert_eq!(hot[0][0], batch * 200);
            assert_eq!((sessions.len(), load.sessions()), (34, 34), "100 records of the others, three each");
        }
    }

    #[test]
    fn new_sessions_are_new_in_every_batch() {
        let mut load = Load::new(Shape { sessions: Sessions::New, ..SHAPE }, 1, 1_790_000_000_000);
        let all: BTreeSet<String> = (0..3).flat_map(|_| sessions(&load.batch().unwrap()).into_keys()).collect();
        assert_eq!(all.len(), 300);
    }

    #[test]
    fn share_of_records_is_repeated() {
        let mut load = Load::new(Shape { duplicates: 0.5, ..SHAPE }, 1, 1_790_000_000_000);
        load.batch().unwrap();
        let second = sessions(&load.batch().unwrap());
        let (all, known): (usize, BTreeSet<_>) = (
            second.values().map(Vec::len).sum(),
            second.iter().flat_map(|(session, seqs)| seqs.iter().map(move |seq| (session, *seq))).collect(),
        );
        assert_eq!(all, 300);
        let new = known.iter().filter(|(_, seq)| *seq >= 3).count();
        assert_eq!(new, 150);
    }
}
