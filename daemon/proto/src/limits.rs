//! Every number of the protocol, on one page.
//!
//! PROTOCOL.md, section "Numbers", lists them for implementers; the two must agree.

use crate::time::Duration;

/// Version of the protocol: the last byte of the Noise prologue, and the second one of each init
pub const VERSION: u8 = 1;

// --- sizes, in bytes -------------------------------------------------------------------------

/// Authentication tag of either AEAD
pub const TAG_LEN: usize = 16;
/// Header of a data message
pub const DATA_HEADER_LEN: usize = 16;
/// An init is padded to exactly this; a response never exceeds it (no amplification)
pub const INIT_LEN: usize = 1024;
/// UDP payload that every path must carry (IPv6's minimum MTU of 1280, less IPv6 and UDP headers)
pub const MESSAGE_MIN: usize = 1232;
/// Largest UDP payload that we ever send or accept
pub const MESSAGE_MAX: usize = 9000 - 28;
/// MTU of a TUN where none is configured
pub const TUN_MTU_DEFAULT: u16 = 1400;
/// Largest inner packet
pub const PACKET_MAX: usize = 65_535;
/// Largest message of the control lane
pub const CONTROL_MAX: usize = 64 * 1024;

// --- sessions --------------------------------------------------------------------------------

/// Age at which the initiator of an epoch makes the next one (WireGuard's REKEY-AFTER-TIME)
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The responder of an epoch waits this much longer before it does so itself
pub const REKEY_PATIENCE: Duration = Duration::from_secs(10);
/// Age at which keys are no longer used in any direction (WireGuard's REJECT-AFTER-TIME)
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Messages after which the next epoch is made
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 28;
/// Messages after which an epoch is no longer used
pub const REJECT_AFTER_MESSAGES: u64 = 1 << 32;
/// Silence of the other node after which a session is forgotten (TCP's own patience)
pub const SESSION_SILENCE: Duration = Duration::from_secs(15 * 60);
/// Initiator's attempts that are remembered, so that a slow answer still counts
pub const INIT_ATTEMPTS_KEPT: usize = 3;
/// Shortest time between two inits to one node
pub const INIT_RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest time between two inits to one node
pub const INIT_RETRY_MAX: Duration = Duration::from_secs(5);
/// Time for which an answered init waits for the first data message
pub const HALF_OPEN_LIFE: Duration = Duration::from_secs(15);
/// Half-open slots of one member
pub const HALF_OPEN_PER_PEER: usize = 3;
/// Epochs kept for opening at any time
pub const EPOCHS_MAX: usize = 4;
/// Bytes of packets that wait for a session, for each peer
pub const WAITING_BYTES: usize = 64 * 1024;
/// Numbers that a replay window remembers, for each path
pub const REPLAY_WINDOW: u64 = 1 << 16;
/// Live paths in a session
pub const PATHS_MAX: usize = 8;

// --- strangers -------------------------------------------------------------------------------

/// Time for which an init of an unknown key waits for the control side
pub const TICKET_LIFE: Duration = Duration::from_secs(2);
/// Tickets at one time
pub const TICKETS_MAX: usize = 1024;
/// Life of the secret behind cookies (WireGuard's COOKIE-SECRET-MAX-AGE)
pub const COOKIE_SECRET_LIFE: Duration = Duration::from_secs(120);
/// Time for which an initiator uses a cookie
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);
/// Inits per second (with a valid first MAC) from which on a cookie is asked for
pub const LOAD_INITS: u32 = 200;
/// Inits per second that are opened, whoever sends them
pub const STRANGER_INITS: u32 = 1000;
/// Inits per second of one address (or IPv6 network of 64 bits) that are opened under load
pub const SOURCE_INITS: u32 = 20;
/// Inits of one address that are opened at once under load
pub const SOURCE_INITS_BURST: u32 = 40;
/// Inits per second that are answered to one key
pub const MEMBER_INITS: u32 = 5;
/// Inits that are answered at once to one key
pub const MEMBER_INITS_BURST: u32 = 10;
/// Addresses, and keys, whose inits are counted at one time
pub const GATE_ENTRIES_MAX: usize = 4096;

// --- paths -----------------------------------------------------------------------------------

/// Interval of heartbeats on an idle path
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Usual time between two acknowledgements, for which the first one is held back
pub const ACK_DELAY: Duration = Duration::from_millis(4);
/// Messages that are acknowledged at once in the beginning of a burst
pub const ACK_EVERY: u64 = 16;
/// Most acknowledgements in a round trip
pub const ACK_MOST: u32 = 64;
/// Least acknowledgements in a round trip, while there is something to acknowledge
pub const ACK_LEAST: u32 = 8;
/// Shortest time between two acknowledgements
pub const ACK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// One part in so many of the way back is what acknowledgements may take, unless they become too few
pub const ACK_SHARE: u64 = 50;
/// Ranges in one acknowledgement
pub const ACK_RANGES_MAX: usize = 512;
/// RTT assumed before the first sample (RFC 9002's kInitialRtt)
pub const INITIAL_RTT: Duration = Duration::from_millis(333);
/// Messages sent later that prove a loss (RFC 9002's kPacketThreshold)
pub const REORDER_MESSAGES: u64 = 3;
/// Bytes allowed to an address that is not validated, for each byte that came from it
pub const AMPLIFICATION: u64 = 3;

// --- control lane ----------------------------------------------------------------------------

/// Payload of one segment of the control lane
pub const SEGMENT_MAX: usize = 1024;
/// Segments that a receiver keeps out of order, and a sender has in flight
pub const LANE_WINDOW: u32 = 64;
/// Bytes that wait in a lane before it is full
pub const LANE_QUEUE: usize = 1024 * 1024;
/// Age of an unacknowledged control message at which its delivery counts as failed
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(15);

// --- datagrams -------------------------------------------------------------------------------

/// Time for which the fragments of a datagram wait for the missing ones
pub const REASSEMBLY_LIFE: Duration = Duration::from_secs(1);
/// Bytes of incomplete datagrams, for each session
pub const REASSEMBLY_BYTES: usize = 1024 * 1024;
/// Payload of the segments of a super-packet that travels whole, at least: what TCP's have, and so much that
/// it makes no more packets than plain ones could be sent
pub const SUPER_SEGMENT_MIN: u16 = 88;
/// Ids of copied datagrams that a receiver remembers
pub const COPIED_WINDOW: u32 = 1 << 16;

// --- split TCP -------------------------------------------------------------------------------

/// Memory of all split connections of one node, where none is configured
pub const MEMORY_DEFAULT: usize = 64 * 1024 * 1024;
/// Bytes that a new split connection is promised in each direction while memory is plenty
pub const LANE_CREDIT_FIRST: usize = 512 * 1024;
/// Least that a split connection is promised; with less left, new connections are plain
pub const LANE_CREDIT_MIN: usize = 8 * 1024;
/// What a split connection that is silent keeps of its promise in each direction, in bytes
pub const LANE_REST: u64 = 4 * 1024;
/// Time without a byte in either direction after which it is silent
pub const LANE_REST_AFTER: Duration = Duration::from_secs(5);
/// Most that a lane's receiver may be ahead of what its kernel acknowledged
pub const LANE_CREDIT_MAX: u64 = 1 << 30;
/// Time after which an acknowledgement of a kernel is told to the other node, where nothing hurries
pub const LANE_STATE_DELAY: Duration = Duration::from_millis(50);
/// Time that a kernel has to answer a SYN, and a connection to be made
pub const LANE_OPENING: Duration = Duration::from_secs(150);
/// Time without progress after which a kernel is given up
pub const LANE_GIVE_UP: Duration = Duration::from_secs(15 * 60);
