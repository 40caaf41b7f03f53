//! What is measured, and in which unit.

/// One kind of figure
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Measure {
    /// Mean payload rate of one TCP stream from the third second on
    Bulk,
    /// Pings beside that stream that were lost
    BusyLost,
    /// Median of those pings' round-trip times, above the idle one
    BusyMedian,
    /// 95th percentile of the same
    Busy95,
    /// 99th percentile of the same
    Busy99,
    /// Mean wait before the bottleneck during that stream
    Queue,
    /// Bytes sent into the link for each byte of payload that arrived
    Wire,
    /// Processor time of all processes of the program at both ends, as a share of one core
    Processor,
    /// Largest resident memory of one of those processes
    Memory,
    /// Mean lateness of the emulator while the stream ran: large where the machine was too busy
    Lateness,
    /// Pings on an idle link that were lost
    IdleLost,
    /// 99th percentile of their round-trip times, above the smallest
    Idle99,
    /// Median time of 100 KB over a new connection
    ObjectMedian,
    /// 95th percentile of the same
    Object95,
    /// Median time of the same where the two hosts have not talked yet
    ColdMedian,
    /// 95th percentile of the time from a request of 200 bytes to its answer
    Request95,
    /// 99th percentile of the same
    Request99,
    /// Bytes sent into the link for each byte of a constant stream of datagrams
    ConstantWire,
    /// Datagrams of that stream that did not arrive
    ConstantLost,
    /// Time back to 90 % of the limit after the link's rate was halved
    Halved,
    /// The same after it was doubled
    Doubled,
    /// Share of the link beside one TCP stream with CUBIC outside the tunnel
    BesideCubic,
    /// Share of the link beside one TCP stream with BBR outside the tunnel
    BesideBbr,
    /// Jain's index of two TCP streams in one session
    JainStreams,
    /// Jain's index of two nodes' sessions over one bottleneck
    JainNodes,
    /// Highest rate of datagrams of 1200 bytes at which fewer than 0.1 % are lost
    Datagrams,
    /// The same, as a share of what the sender delivers without a tunnel
    DatagramsShare,
    /// Questions and answers of one byte in a second
    Turns,
    /// The same, as a share of what the link has without a tunnel
    TurnsShare,
    /// Processor time of both ends for a gigabyte at 500 Mbit/s
    Cost,
    /// One TCP stream where everything shares one core
    OneCore,
    /// Pings beside that stream that were lost
    OneCoreLost,
    /// Median of those pings' round-trip times, above the idle one
    OneCoreMedian,
    /// 99th percentile of the same
    OneCore99,
    /// How many times as much as the second of all programs one TCP stream of fastvpn carries
    TimesSecond,
    /// How many times as much as WireGuard's it carries where everything shares one core
    TimesOnOneCore,
    /// One of the figures in [`super::local`], by its place there
    Local(usize),
}

impl Measure {
    /// Tells whether it follows from other figures
    pub fn is_derived(self) -> bool {
        matches!(self, Self::TimesSecond | Self::TimesOnOneCore)
    }

    /// All that are measured over links
    pub const ALL: [Self; 36] = [
        Self::Bulk,
        Self::BusyLost,
        Self::BusyMedian,
        Self::Busy95,
        Self::Busy99,
        Self::Queue,
        Self::Wire,
        Self::Processor,
        Self::Memory,
        Self::Lateness,
        Self::IdleLost,
        Self::Idle99,
        Self::ObjectMedian,
        Self::Object95,
        Self::ColdMedian,
        Self::Request95,
        Self::Request99,
        Self::ConstantWire,
        Self::ConstantLost,
        Self::Halved,
        Self::Doubled,
        Self::BesideCubic,
        Self::BesideBbr,
        Self::JainStreams,
        Self::JainNodes,
        Self::TimesSecond,
        Self::Datagrams,
        Self::DatagramsShare,
        Self::Turns,
        Self::TurnsShare,
        Self::Cost,
        Self::OneCore,
        Self::OneCoreLost,
        Self::OneCoreMedian,
        Self::OneCore99,
        Self::TimesOnOneCore,
    ];

    /// Returns the name for JSON
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::BusyLost => "ping-beside-lost",
            Self::BusyMedian => "ping-beside-50",
            Self::Busy95 => "ping-beside-95",
            Self::Busy99 => "ping-beside-99",
            Self::Queue => "queue",
            Self::Wire => "wire",
            Self::Processor => "cpu",
            Self::Memory => "memory",
            Self::Lateness => "lateness",
            Self::IdleLost => "ping-idle-lost",
            Self::Idle99 => "ping-idle-99",
            Self::ObjectMedian => "object-50",
            Self::Object95 => "object-95",
            Self::ColdMedian => "object-cold-50",
            Self::Request95 => "request-95",
            Self::Request99 => "request-99",
            Self::ConstantWire => "constant-wire",
            Self::ConstantLost => "constant-lost",
            Self::Halved => "rate-halved",
            Self::Doubled => "rate-doubled",
            Self::BesideCubic => "share-beside-cubic",
            Self::BesideBbr => "share-beside-bbr",
            Self::JainStreams => "jain-streams",
            Self::JainNodes => "jain-nodes",
            Self::TimesSecond => "times-second",
            Self::TimesOnOneCore => "one-core-times-wireguard",
            Self::Datagrams => "datagrams",
            Self::DatagramsShare => "datagrams-share",
            Self::Turns => "turns",
            Self::TurnsShare => "turns-share",
            Self::Cost => "cost",
            Self::OneCore => "one-core",
            Self::OneCoreLost => "one-core-ping-lost",
            Self::OneCoreMedian => "one-core-ping-50",
            Self::OneCore99 => "one-core-ping-99",
            Self::Local(place) => super::local::FIGURES[place].name,
        }
    }

    /// Says what it is, for the table
    pub fn title(self) -> &'static str {
        match self {
            Self::Bulk => "one TCP stream, from the third second on",
            Self::BusyLost => "ping beside it: lost",
            Self::BusyMedian => "ping beside it: median over idle",
            Self::Busy95 => "ping beside it: 95 % over idle",
            Self::Busy99 => "ping beside it: 99 % over idle",
            Self::Queue => "mean wait before the bottleneck",
            Self::Wire => "bytes sent for each byte delivered",
            Self::Processor => "processor time, both ends",
            Self::Memory => "memory of the larger end",
            Self::Lateness => "mean lateness of the emulator",
            Self::IdleLost => "ping, idle: lost",
            Self::Idle99 => "ping, idle: 99 % over the smallest",
            Self::ObjectMedian => "100 KB over a new connection: median",
            Self::Object95 => "100 KB over a new connection: 95 %",
            Self::ColdMedian => "the same, first contact of the hosts: median",
            Self::Request95 => "request and answer of 200 bytes: 95 %",
            Self::Request99 => "request and answer of 200 bytes: 99 %",
            Self::ConstantWire => "30 Mbit/s of UDP: bytes sent for each byte",
            Self::ConstantLost => "30 Mbit/s of UDP: lost",
            Self::Halved => "rate halved: back at 90 % after",
            Self::Doubled => "rate doubled: back at 90 % after",
            Self::BesideCubic => "share beside one CUBIC stream",
            Self::BesideBbr => "share beside one BBR stream",
            Self::JainStreams => "Jain index, two streams in one session",
            Self::JainNodes => "Jain index, sessions of two nodes",
            Self::TimesSecond => "that stream, in times of the second program's",
            Self::TimesOnOneCore => "that stream, in times of WireGuard's",
            Self::Datagrams => "datagrams of 1200 bytes, under 0.1 % lost",
            Self::DatagramsShare => "the same, of what the bare link delivers",
            Self::Turns => "questions and answers of 1 byte",
            Self::TurnsShare => "the same, of what the bare link has",
            Self::Cost => "processor time of both ends for 1 GB at 500 Mbit/s",
            Self::OneCore => "one TCP stream, everything on one core",
            Self::OneCoreLost => "ping beside it: lost",
            Self::OneCoreMedian => "ping beside it: median over idle",
            Self::OneCore99 => "ping beside it: 99 % over idle",
            Self::Local(place) => super::local::FIGURES[place].title,
        }
    }

    /// Returns the unit
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bulk | Self::OneCore | Self::Datagrams => "Mbit/s",
            Self::Turns => "1/s",
            Self::BusyLost
            | Self::IdleLost
            | Self::ConstantLost
            | Self::BesideCubic
            | Self::BesideBbr
            | Self::DatagramsShare
            | Self::TurnsShare
            | Self::OneCoreLost
            | Self::Processor => "%",
            Self::BusyMedian
            | Self::Busy95
            | Self::Busy99
            | Self::Idle99
            | Self::OneCoreMedian
            | Self::OneCore99
            | Self::Queue => "ms",
            Self::Memory => "MiB",
            Self::Lateness => "µs",
            Self::ObjectMedian
            | Self::Object95
            | Self::ColdMedian
            | Self::Request95
            | Self::Request99 => "RTT",
            Self::Wire
            | Self::ConstantWire
            | Self::JainStreams
            | Self::JainNodes
            | Self::TimesSecond
            | Self::TimesOnOneCore => "",
            Self::Halved | Self::Doubled | Self::Cost => "s",
            Self::Local(place) => super::local::FIGURES[place].unit,
        }
    }

    /// Returns how many digits after the point are shown
    pub fn digits(self) -> usize {
        match self {
            Self::Wire | Self::ConstantWire | Self::JainStreams | Self::JainNodes => 3,
            Self::ObjectMedian
            | Self::Object95
            | Self::ColdMedian
            | Self::Request95
            | Self::Request99
            | Self::BusyLost
            | Self::IdleLost
            | Self::ConstantLost
            | Self::Cost
            | Self::OneCoreLost => 2,
            // ping tells whole milliseconds where it takes longer than a hundred
            Self::BusyMedian
            | Self::Busy95
            | Self::Busy99
            | Self::Idle99
            | Self::Processor
            | Self::Lateness
            | Self::Turns
            | Self::TurnsShare
            | Self::DatagramsShare
            | Self::BesideCubic
            | Self::BesideBbr => 0,
            Self::Bulk
            | Self::Queue
            | Self::Memory
            | Self::Halved
            | Self::Doubled
            | Self::TimesSecond
            | Self::TimesOnOneCore
            | Self::Datagrams
            | Self::OneCore
            | Self::OneCoreMedian
            | Self::OneCore99
            | Self::Local(_) => 1,
        }
    }
}
