//! Everything known about the role, and how one more observation changes it.

use crate::mount::{Presence, Probe};
use crate::{Claim, InfoAnswer, NodeName, Observation, Owner};

/// When an observation began, counted, not timed: an answer is as old as its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservationSeq(pub(crate) u64);

/// A value and when it was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamped<T> {
    pub(crate) at: ObservationSeq,
    pub(crate) value: T,
}

/// The two sources that can prove a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    Stream,
    Info,
}

/// What is known. Changed by observations only; judged by [`merge`](crate::merge::merge).
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub(crate) own_name: Option<NodeName>,
    pub(crate) row_rejected: Option<ObservationSeq>,
    file: Option<Stamped<NodeName>>,
    stream: Option<Stamped<Claim>>,
    info: Option<Stamped<Claim>>,
    /// The freshest claim ever, whether or not it still stands.
    latest: Option<Stamped<Claim>>,
    owner: Owner,
    probe: Probe,
    seen: bool,
}

impl Evidence {
    /// Nothing is known yet but what the configuration and the process remember.
    pub(crate) fn new(own_name: Option<NodeName>, seen: bool) -> Self {
        Self {
            own_name,
            file: None,
            row_rejected: None,
            stream: None,
            info: None,
            latest: None,
            owner: Owner::Unclear,
            probe: Probe::Plain,
            seen,
        }
    }

    /// Whether LiteFS is here.
    ///
    /// LiteFS's files in the mount say so, or an `/info` that names this very directory. A mount
    /// that was LiteFS once never counts as a plain directory again: a write into what is left of
    /// it would be lost.
    pub(crate) fn presence(&self) -> Presence {
        let here = match self.probe {
            Probe::Marker => true,
            Probe::Plain | Probe::Unclear => self.owner == Owner::ThisMount,
            Probe::Gone | Probe::Dead => false,
        };
        match (here, self.seen || self.probe == Probe::Dead) {
            (true, _) => Presence::Here,
            (false, true) => Presence::Lost,
            (false, false) => Presence::NeverSeen,
        }
    }

    /// What the authoritative sources say, freshest first, as far as they speak for this mount.
    pub(crate) fn authority(&self) -> Option<Stamped<Claim>> {
        if self.owner == Owner::OtherMount {
            return None;
        }
        let freshest =
            [&self.stream, &self.info].into_iter().flatten().max_by_key(|claim| claim.at)?;
        Some(Stamped { at: freshest.at, value: self.read(&freshest.value) })
    }

    /// What `.primary` says, if it is there.
    pub(crate) fn file_claim(&self) -> Option<Stamped<Claim>> {
        let Stamped { at, value } = self.file.as_ref()?;
        Some(Stamped { at: *at, value: self.read(&Claim::Replica(value.clone())) })
    }

    /// Whether the event stream's word counts. If not, `/info` has to be asked from time to time.
    pub(crate) fn stream_is_current(&self) -> bool {
        self.stream.is_some() && self.owner != Owner::OtherMount
    }

    /// What a claim means to this node: a node that is announced as its own replica has no primary.
    fn read(&self, claim: &Claim) -> Claim {
        match claim {
            Claim::Replica(name) if self.own_name.as_ref() == Some(name) => Claim::NoPrimary,
            other => other.clone(),
        }
    }

    /// A look at the mount directory.
    pub(crate) fn record_probe(&mut self, probe: Probe) {
        if probe != Probe::Unclear {
            self.probe = probe;
        }
        self.update_presence();
    }

    fn update_presence(&mut self) {
        self.seen |= matches!(self.presence(), Presence::Here | Presence::Lost);
    }

    /// Takes in one observation. Answers whether `/info` should be asked what is the matter.
    pub(crate) fn apply(&mut self, at: ObservationSeq, observation: Observation) -> bool {
        match observation {
            Observation::PrimaryFile(name) => {
                let vanished = name.is_none() && self.file.is_some();
                self.file = name.map(|value| Stamped { at, value });
                vanished
            }
            Observation::Stream(claim) => {
                // The stream does not say a primary's own name, `/info` does.
                let nameless = claim == Claim::Primary && self.own_name.is_none();
                self.record_claim(Authority::Stream, Stamped { at, value: claim });
                nameless
            }
            Observation::StreamLost => self.stream.take().is_some(),
            Observation::Info(answer) => {
                self.record_info(at, answer);
                false
            }
            Observation::InfoUnreachable => {
                self.info = None;
                if self.owner == Owner::ThisMount {
                    self.owner = Owner::Unclear;
                }
                false
            }
            Observation::RowWriteRejected => {
                self.row_rejected = self.row_rejected.max(Some(at));
                true
            }
            Observation::PeerUnreachable { .. } | Observation::PeerNotPrimary { .. } => true,
            Observation::Transaction { .. } => false,
        }
    }

    fn record_info(&mut self, at: ObservationSeq, answer: InfoAnswer) {
        self.owner = answer.owner;
        self.update_presence();
        if answer.owner == Owner::OtherMount {
            self.info = None;
            return;
        }
        self.own_name = self.own_name.take().or(answer.own_name);
        self.record_claim(Authority::Info, Stamped { at, value: answer.claim });
    }

    /// Files a claim. Where two claims contradict each other, the older one is dropped for good,
    /// even if the source of the fresher one is lost by now: otherwise it would come back, long
    /// outdated.
    fn record_claim(&mut self, source: Authority, claim: Stamped<Claim>) {
        let contradicted = |known: &Option<Stamped<Claim>>| {
            known.as_ref().is_some_and(|known| self.read(&known.value) != self.read(&claim.value))
        };
        let overtaken = self.latest.as_ref().is_some_and(|latest| latest.at > claim.at);
        if overtaken && contradicted(&self.latest) {
            return;
        }
        let (stream_falls, info_falls) = (contradicted(&self.stream), contradicted(&self.info));
        self.stream.take_if(|_| stream_falls);
        self.info.take_if(|_| info_falls);
        if !overtaken {
            self.latest = Some(claim.clone());
        }
        match source {
            Authority::Stream => self.stream = Some(claim),
            Authority::Info => self.info = Some(claim),
        }
    }
}
