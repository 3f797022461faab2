//! The protections of the job, by name, so that the model test can take each of them out and show that
//! it fails without it. In the program itself all of them always hold.

/// One protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A stream is a topic id, not a name.
    StreamIsTopicId,
    /// A batch passes only a look-up that started after its last poll.
    LookupAfterPoll,
    /// A mark above the log's end stops the partition.
    MarkWithinLog,
    /// Each sink's mark is checked against the log's epochs, not only the one that reading starts at.
    EveryMarkChecked,
    /// The topic's id is believed to be another one only when several look-ups agree.
    SettledBeforeSwitch,
    /// What was read and can't be read again is durable before its partition starts over.
    DrainedBeforeStartingOver,
    /// A gap is acknowledged before the mark passes it.
    GapBeforeMark,
    /// A dead letter is acknowledged before the mark passes it.
    DeadLetterBeforeMark,
    /// What is read behind dead letters that are on their way takes a share of the memory at most.
    WaitingIsBounded,
    /// A dead letter that its topic doesn't take whole is cut.
    TooLargeIsCut,
    /// A sink without a mark starts at the log's start, wherever the others are.
    NoMarkStartsAtLogStart,
    /// A first start records no gap.
    FirstStartHasNoGap,
    /// A batch is cut at each sink's own mark.
    SliceAtEachMark,
    /// What an earlier run read is dropped.
    RunsAreTold,
    /// Batches without rows go to the sinks too.
    MarksWithoutRows,
    /// A partition that another writer moved is assigned anew.
    MovedIsAssignedAnew,
    /// Kafka is told the least mark.
    CommitLeastMark,
    /// A report to Kafka that failed is made again.
    FailedCommitIsRepeated,
    /// A registry that doesn't answer has not said that there is no such schema.
    SilenceIsNoAnswer,
    /// A schema that isn't there is waited for.
    MissingIsWaitedFor,
}

/// Which protections hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    #[cfg(test)]
    pub(super) without: Option<Rule>,
}

impl Rules {
    /// Whether the protection holds.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "under test it depends on the job")]
    pub(super) const fn hold(self, _: Rule) -> bool {
        true
    }

    /// Whether the protection holds.
    #[cfg(test)]
    pub(super) fn hold(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
