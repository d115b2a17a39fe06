//! Object types: the kinds of things that events name and filters filter by.

/// The type of an object, by its number. Enate's have names here; the names of registered ones are in the
/// [`super::Catalogue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectType(i16);

/// The least number of an object type that is registered.
pub const FIRST_REGISTERED: i16 = 1000;

impl ObjectType {
    /// 31
    pub const COMPANY: Self = Self(31);
    /// 81: a Case, Ticket or Action
    pub const PACKET: Self = Self(81);
    /// 215
    pub const CONTRACT: Self = Self(215);
    /// 217
    pub const SERVICE: Self = Self(217);
    /// 260
    pub const SCHEDULE: Self = Self(260);
    /// 911
    pub const PROCESS: Self = Self(911);

    /// Enate's object types, with their names in an event's `Objects`.
    pub const ENATE: [(Self, &'static str); 6] = [
        (Self::COMPANY, "Company"),
        (Self::PACKET, "Packet"),
        (Self::CONTRACT, "Contract"),
        (Self::SERVICE, "Service"),
        (Self::SCHEDULE, "Schedule"),
        (Self::PROCESS, "Process"),
    ];

    /// The number, as in `FilterObjectType`.
    pub const fn number(self) -> i16 {
        self.0
    }

    /// The object type of that number, if there may be one: one of Enate's, or one from [`FIRST_REGISTERED`].
    pub fn numbered(number: i64) -> Option<Self> {
        let kind = Self(i16::try_from(number).ok()?);
        (kind.0 >= FIRST_REGISTERED || kind.enate_name().is_some()).then_some(kind)
    }

    /// The name, if it is one of Enate's.
    pub fn enate_name(self) -> Option<&'static str> {
        let mut known = Self::ENATE.into_iter();
        known.find(|(kind, _)| *kind == self).map(|(_, name)| name)
    }

    /// Enate's object type of that name.
    pub fn enate_named(name: &str) -> Option<Self> {
        let mut known = Self::ENATE.into_iter();
        known.find(|(_, known)| *known == name).map(|(kind, _)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_name_leads_back_to_its_own() {
        for (kind, name) in ObjectType::ENATE {
            assert_eq!(kind.enate_name(), Some(name));
            assert_eq!(ObjectType::enate_named(name), Some(kind));
            assert_eq!(ObjectType::numbered(kind.number().into()), Some(kind));
        }
        for unknown in [0, -1, 30, 999, 32_768, i64::MAX] {
            assert_eq!(ObjectType::numbered(unknown), None);
        }
        assert_eq!(ObjectType::numbered(1000).unwrap().enate_name(), None);
    }
}
