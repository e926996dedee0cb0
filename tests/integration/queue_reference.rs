//! The queue in memory: a few plain collections that do what the scripts should.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mufakat::protocol::queue::{DedupScope, Message, Receipt};

/// So many failures make a message dead.
pub const MAX_DELIVERIES: u64 = 3;

#[derive(Clone, Debug, Default)]
pub struct Kept {
    priority: u64,
    /// What may stand for it: its id, and what it is known by instead.
    names: Vec<String>,
    group: Option<String>,
    expires: Option<u64>,
    /// Whether its expiry is still looked for.
    ttl: bool,
    due: u64,
    token: String,
    deliveries: u64,
    counted: u64,
}

/// What a topic is, said in another way.
#[derive(Debug, Default)]
pub struct Model {
    pub now: u64,
    pub seq: u64,
    /// How many messages may be alive, and whether the oldest die for more.
    pub limit: Option<(u64, bool)>,
    /// How long a message rests after its first failure, and at most; twice as long after each further one.
    pub backoff: Option<(u64, u64)>,
    pub messages: BTreeMap<u64, Kept>,
    pub ready: [VecDeque<u64>; 10],
    pub delayed: BTreeSet<(u64, String)>,
    pub leased: BTreeSet<(u64, String)>,
    pub dead: BTreeSet<(u64, String)>,
    /// The first is the head, which stands in one of the places above.
    pub groups: BTreeMap<String, VecDeque<u64>>,
    /// Until when a name is known; -1: until its message is done.
    pub ids: BTreeMap<String, (u64, i64)>,
    pub acked: BTreeSet<(u64, String)>,
}

/// What a message is known by.
fn name_of(message: &Message) -> Option<String> {
    let dedup_id = message.dedup_id.as_ref();
    dedup_id.map_or(message.id.clone(), |id| Some(format!("dedup {id}")))
}

/// How long, in ms; none: until it is done.
fn window_of(message: &Message) -> Option<u64> {
    match message.dedup_scope {
        DedupScope::UntilAcked => None,
        DedupScope::Window => message.dedup_ms,
    }
}

fn without(set: &mut BTreeSet<(u64, String)>, seq: u64) -> bool {
    let member = seq.to_string();
    let before = set.len();
    set.retain(|(_, each)| *each != member);
    set.len() < before
}

impl Model {
    fn is_in(set: &BTreeSet<(u64, String)>, seq: u64) -> bool {
        set.iter().any(|(_, member)| *member == seq.to_string())
    }

    /// All messages of a request, or none.
    pub fn push_request(&mut self, messages: &[Message]) -> Vec<Option<(u64, bool)>> {
        let mut new = BTreeSet::new();
        let mut count = 0;
        for message in messages {
            let name = name_of(message);
            let mut is_known = |name: &String| new.contains(name) || self.known(name).is_some();
            if name.as_ref().is_some_and(&mut is_known) {
                continue;
            }
            count += 1;
            if window_of(message) != Some(0) {
                new.extend(name.into_iter().chain(message.id.clone()));
            }
        }
        match self.limit.is_none() || self.fits(count) {
            true => messages.iter().map(|m| Some(self.push(m))).collect(),
            false => vec![None; messages.len()],
        }
    }

    fn fits(&mut self, more: u64) -> bool {
        let Some((limit, overflows)) = self.limit else {
            return true;
        };
        let alive = (self.messages.len() - self.dead.len()) as u64;
        let places = (alive + more).saturating_sub(limit);
        if more == 0 || places == 0 {
            return true;
        }
        let ready = self.ready.iter().flatten().copied();
        let victims: Vec<u64> = ready.take(places as usize).collect();
        if !overflows || more > limit || (victims.len() as u64) < places {
            return false;
        }
        for victim in &victims {
            for list in &mut self.ready {
                list.retain(|each| each != victim);
            }
        }
        for victim in victims {
            self.bury(victim);
        }
        true
    }

    /// The message that a name stands for. One that has expired is over, and its name with it if that is good as
    /// long as the message.
    fn known(&mut self, name: &str) -> Option<u64> {
        let (seq, till) = *self.ids.get(name)?;
        if till == -1 {
            let expires = self.messages[&seq].expires;
            let is_over = expires.is_some_and(|expires| expires <= self.now);
            if is_over && !Model::is_in(&self.leased, seq) && !Model::is_in(&self.dead, seq) {
                self.end(seq);
                return None;
            }
        }
        (till == -1 || till > self.now as i64).then_some(seq)
    }

    fn push(&mut self, message: &Message) -> (u64, bool) {
        let name = name_of(message);
        if let Some(seq) = name.as_ref().and_then(|name| self.known(name)) {
            return (seq, true);
        }
        let till = window_of(message).map_or(-1, |ms| (self.now + ms) as i64);
        // Its id stands for it, too, unless it does for another one that is there.
        let id = message.id.clone().filter(|_| message.dedup_id.is_some());
        let id = id.and_then(|id| match self.known(&id) {
            Some(of) if self.messages.contains_key(&of) => None,
            Some(_) if till == -1 => Some((till, id)),
            Some(_) => Some((till.max(self.ids[&id].1), id)),
            None => Some((till, id)),
        });
        self.seq += 1;
        let seq = self.seq;
        for (till, name) in name.iter().map(|name| (till, name.clone())).chain(id) {
            self.ids.insert(name, (seq, till));
        }
        let kept = Kept {
            priority: message.priority,
            names: name.into_iter().chain(message.id.clone()).collect(),
            group: message.group.clone(),
            expires: message.ttl_ms.map(|ttl| self.now + ttl),
            ttl: message.ttl_ms.is_some(),
            due: message.delay_ms.map_or(0, |delay| self.now + delay),
            ..Kept::default()
        };
        self.messages.insert(seq, kept);
        self.enter(seq);
        (seq, false)
    }

    /// Puts a message behind its group, or where it can be handed out.
    fn enter(&mut self, seq: u64) {
        let group = self.messages[&seq].group.clone();
        if let Some(group) = group {
            let members = self.groups.entry(group).or_default();
            members.push_back(seq);
            if members.len() > 1 {
                return;
            }
        }
        self.place(seq);
    }

    fn place(&mut self, seq: u64) {
        let kept = &self.messages[&seq];
        if kept.due > self.now {
            self.delayed.insert((kept.due, seq.to_string()));
        } else {
            self.ready[kept.priority as usize].push_back(seq);
        }
    }

    /// A message leaves its group; if it was the head, the next one takes its place.
    fn leave_group(&mut self, seq: u64) {
        let Some(group) = self.messages[&seq].group.clone() else {
            return;
        };
        let Some(members) = self.groups.get_mut(&group) else {
            return;
        };
        let was_head = members.front() == Some(&seq);
        members.retain(|each| *each != seq);
        let next = members.front().copied();
        if next.is_none() {
            self.groups.remove(&group);
        }
        if let (true, Some(next)) = (was_head, next) {
            self.place(next);
        }
    }

    fn end(&mut self, seq: u64) {
        without(&mut self.delayed, seq);
        without(&mut self.leased, seq);
        let was_dead = without(&mut self.dead, seq);
        for list in &mut self.ready {
            list.retain(|each| *each != seq);
        }
        if !was_dead {
            self.leave_group(seq);
        }
        let kept = self.messages.remove(&seq).expect("it was there");
        for name in kept.names {
            if let Some((of, till)) = self.ids.get(&name).copied()
                && of == seq
                && (till == -1 || till <= self.now as i64)
            {
                self.ids.remove(&name);
            }
        }
    }

    fn bury(&mut self, seq: u64) {
        self.dead.insert((self.now, seq.to_string()));
        self.leave_group(seq);
        let kept = self.messages.get_mut(&seq).unwrap();
        kept.token.clear();
        kept.ttl = false;
    }

    fn holds(&self, receipt: &Receipt) -> bool {
        let kept = self.messages.get(&receipt.seq);
        kept.is_some_and(|kept| kept.token == receipt.token)
    }

    pub fn ack(&mut self, receipt: &Receipt) -> u64 {
        let key = (receipt.seq, receipt.token.clone());
        if self.holds(receipt) {
            self.end(receipt.seq);
            self.acked.insert(key);
            1
        } else if self.acked.contains(&key) {
            2
        } else {
            0
        }
    }

    /// Takes a message out of where it is; whether it was in flight.
    fn take_out(&mut self, seq: u64) -> bool {
        without(&mut self.delayed, seq);
        for list in &mut self.ready {
            list.retain(|each| *each != seq);
        }
        without(&mut self.leased, seq)
    }

    /// A message comes back once, however often it is named: as the last says whose receipt was good. None is after
    /// its holder has ended it.
    pub fn nack(&mut self, nacks: &[(Receipt, char, Option<u64>)]) -> Vec<u64> {
        let (mut last, mut ended) = (BTreeMap::new(), BTreeSet::new());
        let results = nacks.iter().enumerate().map(|(at, (receipt, mode, _))| {
            let is_good = self.holds(receipt) && !ended.contains(&receipt.seq);
            if is_good {
                last.insert(receipt.seq, at);
            }
            if is_good && *mode != 'u' {
                ended.insert(receipt.seq);
            }
            u64::from(is_good)
        });
        let results = results.collect();
        let acting = last.into_values().collect::<BTreeSet<_>>();
        for at in acting.into_iter().rev() {
            let (receipt, mode, delay) = &nacks[at];
            self.nack_one(receipt, *mode, *delay);
        }
        results
    }

    fn rest_after(&self, failures: u64) -> Option<u64> {
        let (first, most) = self.backoff?;
        Some((first << failures.saturating_sub(1).min(20)).min(most))
    }

    fn nack_one(&mut self, receipt: &Receipt, mode: char, delay: Option<u64>) {
        let was_in_flight = self.take_out(receipt.seq);
        match mode {
            'd' => self.bury(receipt.seq),
            'u' => self.give_back(receipt.seq, false, None),
            _ => {
                let kept = self.messages.get_mut(&receipt.seq).unwrap();
                kept.token.clear();
                let counted = kept.counted;
                let delay = match was_in_flight {
                    true => delay,
                    false => delay.or_else(|| self.rest_after(counted)),
                };
                self.give_back(receipt.seq, was_in_flight, delay);
            }
        }
    }

    fn give_back(&mut self, seq: u64, counts: bool, delay: Option<u64>) {
        let now = self.now;
        let kept = self.messages.get_mut(&seq).unwrap();
        kept.counted += u64::from(counts);
        let kept = self.messages[&seq].clone();
        let backoff = self.rest_after(kept.counted).filter(|_| counts);
        let delay = delay.or(backoff);
        if kept.expires.is_some_and(|expires| expires <= now) {
            self.end(seq);
        } else if counts && kept.counted >= MAX_DELIVERIES {
            self.bury(seq);
        } else if let Some(delay) = delay.filter(|delay| *delay > 0) {
            self.delayed.insert((now + delay, seq.to_string()));
        } else {
            let priority = kept.priority as usize;
            self.ready[priority].push_front(seq);
        }
    }

    pub fn extend(&mut self, receipt: &Receipt, visibility: u64) -> u64 {
        if !self.holds(receipt) {
            return 0;
        }
        self.take_out(receipt.seq);
        let deadline = self.now + visibility;
        self.leased.insert((deadline, receipt.seq.to_string()));
        deadline
    }

    pub fn sweep(&mut self) {
        let now = self.now;
        let due = |set: &BTreeSet<(u64, String)>| -> Vec<u64> {
            let due = set.iter().take_while(|(at, _)| *at <= now);
            due.map(|(_, member)| member.parse().unwrap()).collect()
        };
        for seq in due(&self.delayed) {
            without(&mut self.delayed, seq);
            self.ready[self.messages[&seq].priority as usize].push_back(seq);
        }
        let mut over = due(&self.leased);
        over.sort();
        for seq in &over {
            without(&mut self.leased, *seq);
        }
        for seq in over.into_iter().rev() {
            self.give_back(seq, true, None);
        }
        let ends = self.messages.iter().filter(|(_, kept)| kept.ttl);
        let mut ends: Vec<(u64, String)> = ends
            .map(|(seq, kept)| (kept.expires.unwrap(), seq.to_string()))
            .collect();
        ends.sort();
        for (expires, member) in ends {
            let seq = member.parse().unwrap();
            if expires <= now {
                match Model::is_in(&self.leased, seq) {
                    true => self.messages.get_mut(&seq).unwrap().ttl = false,
                    false => self.end(seq),
                }
            }
        }
    }

    pub fn pop(&mut self, max: u64, visibility: u64, token: &str) -> Vec<(u64, u64)> {
        let mut popped = Vec::new();
        for priority in (0..10).rev() {
            while (popped.len() as u64) < max
                && let Some(seq) = self.ready[priority].pop_front()
            {
                let kept = self.messages.get_mut(&seq).unwrap();
                kept.deliveries += 1;
                kept.token = token.to_owned();
                self.leased.insert((self.now + visibility, seq.to_string()));
                popped.push((seq, kept.deliveries));
            }
        }
        popped
    }

    pub fn cancel(&mut self, id: &str) -> u64 {
        let Some((seq, _)) = self.ids.get(id).copied() else {
            return 0;
        };
        let in_the_way = Model::is_in(&self.leased, seq) || Model::is_in(&self.dead, seq);
        if !self.messages.contains_key(&seq) || in_the_way {
            return 0;
        }
        let names = self.messages[&seq].names.clone();
        self.end(seq);
        for name in names {
            if self.ids.get(&name).is_some_and(|(of, _)| *of == seq) {
                self.ids.remove(&name);
            }
        }
        1
    }

    /// How many messages of these states there were, one state after the other.
    pub fn purge(&mut self, states: &[&str]) -> u64 {
        let mut count = 0;
        for state in states {
            let (behind, others) = self.all_of(state);
            count += (behind.len() + others.len()) as u64;
            behind
                .into_iter()
                .chain(others)
                .for_each(|seq| self.end(seq));
        }
        count
    }

    /// Those that stand behind others of their group, and the others.
    fn all_of(&self, state: &str) -> (Vec<u64>, Vec<u64>) {
        let number = |(_, member): &(u64, String)| member.parse().unwrap();
        let later = |set: &BTreeSet<(u64, String)>| -> Vec<u64> {
            let later = set.iter().filter(|(at, _)| *at > self.now);
            later.map(number).collect()
        };
        let (delayed, in_flight) = (later(&self.delayed), later(&self.leased));
        let dead: Vec<u64> = self.dead.iter().map(number).collect();
        match state {
            "delayed" => return (Vec::new(), delayed),
            "in_flight" => return (Vec::new(), in_flight),
            "dead" => return (Vec::new(), dead),
            _ => {}
        }
        let elsewhere: BTreeSet<u64> = [delayed, in_flight, dead].into_iter().flatten().collect();
        let ready = self.messages.keys().copied();
        let ready = ready.filter(|seq| !elsewhere.contains(seq));
        ready.partition(|seq| {
            let group = self.messages[seq].group.as_ref();
            let members = group.and_then(|group| self.groups.get(group));
            members.is_some_and(|members| members.front() != Some(seq))
        })
    }

    pub fn redrive(&mut self) -> u64 {
        let dead = std::mem::take(&mut self.dead).into_iter();
        let mut dead: Vec<(u64, u64)> = dead
            .map(|(at, member)| (at, member.parse().unwrap()))
            .collect();
        // Those of one instant by their number, 2 before 10.
        dead.sort();
        for &(_, seq) in &dead {
            let kept = self.messages.get_mut(&seq).unwrap();
            (kept.due, kept.expires) = (0, None);
            (kept.deliveries, kept.counted) = (0, 0);
            self.enter(seq);
        }
        dead.len() as u64
    }

    /// Ready (with those that are due, and those behind their group), delayed, in flight, dead.
    pub fn counts(&self) -> [u64; 4] {
        let later =
            |set: &BTreeSet<(u64, String)>| set.iter().filter(|(at, _)| *at > self.now).count();
        let elsewhere = [later(&self.delayed), later(&self.leased), self.dead.len()];
        let ready = self.messages.len() - elsewhere.iter().sum::<usize>();
        [ready, elsewhere[0], elsewhere[1], elsewhere[2]].map(|count| count as u64)
    }
}
