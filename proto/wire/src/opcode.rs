//! Opcode numbers. A retired number stays listed and is never used again. Requests are below 128, replies from 128 on.

macro_rules! opcodes {
    ($($name:ident = $number:literal),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode {
            $($name = $number),+
        }

        impl Opcode {
            pub fn from_number(number: u8) -> Option<Opcode> {
                match number {
                    $($number => Some(Opcode::$name),)+
                    _ => None,
                }
            }

            /// Every opcode there is.
            pub const ALL: &[Opcode] = &[$(Opcode::$name),+];
        }
    };
}

opcodes! {
    Open = 1,
    Observe = 2,
    Report = 3,
    Write = 4,
    Discard = 5,
    Read = 6,
    Repair = 7,
    ListChanged = 8,
    MarkStale = 9,
    ListStale = 10,
    ReadSlot = 11,
    Fill = 12,
    CompleteChunk = 13,
    BeginSync = 14,
    AdoptPrefix = 15,
    FinishSync = 16,
    Ping = 17,
    VoidStale = 18,
    Grow = 19,
    Keep = 20,
    Usage = 21,
    ListBlocks = 22,
    ListBad = 23,
    Digest = 24,
    Opened = 128,
    Reported = 129,
    Data = 130,
    Changed = 131,
    Slot = 132,
    Done = 133,
    Refused = 134,
    Held = 135,
    Blocks = 136,
    Bad = 137,
    Digests = 138,
}
