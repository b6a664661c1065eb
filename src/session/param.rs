//! Parameters that bring their type with them, so that a statement goes out
//! with its values at once: to ask the server for the types first is a round
//! trip more, and a start is made of dozens of statements.

use tokio_postgres::types::{ToSql, Type};

use crate::lsn::Lsn;

/// A value of one PostgreSQL type.
pub trait Typed {
    /// Its type.
    const TYPE: Type;
    /// The type of an array of it.
    const ARRAY: Type;
    /// The type of an array of those: the same, an array has any number of
    /// dimensions. Only bytes make something else.
    const ARRAYS: Type = Self::ARRAY;
}

macro_rules! typed {
    ($($rust:ty => $one:ident, $array:ident;)*) => {
        $(impl Typed for $rust {
            const TYPE: Type = Type::$one;
            const ARRAY: Type = Type::$array;
        })*
    };
}

typed! {
    bool => BOOL, BOOL_ARRAY;
    i16 => INT2, INT2_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    u32 => OID, OID_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    Lsn => PG_LSN, PG_LSN_ARRAY;
}

impl<T: Typed + ?Sized> Typed for &T {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl Typed for u8 {
    const TYPE: Type = Type::CHAR;
    const ARRAY: Type = Type::BYTEA;
    const ARRAYS: Type = Type::BYTEA_ARRAY;
}

impl<T: Typed> Typed for [T] {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAYS;
}

impl<T: Typed> Typed for Vec<T> {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAYS;
}

/// A parameter of a statement, of whatever type.
pub trait Param: Sync {
    /// Its type on the server.
    fn kind(&self) -> Type;
    /// Its value.
    fn value(&self) -> &(dyn ToSql + Sync);
}

impl<T: Typed + ToSql + Sync> Param for T {
    fn kind(&self) -> Type {
        T::TYPE
    }

    fn value(&self) -> &(dyn ToSql + Sync) {
        self
    }
}

/// What the driver takes.
pub(super) fn typed<'p>(params: &[&'p dyn Param]) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
    params.iter().map(|param| (param.value(), param.kind())).collect()
}
