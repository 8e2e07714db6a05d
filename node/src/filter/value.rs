//! Lists and maps for expressions, shared by reference count. The library's own types are copied as a whole
//! at each use, even into error values that are then dropped.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, LIST_TYPE, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{ExecutionError, Value};
use serde_json::Value as Json;

/// Map with string keys.
#[derive(Debug, Clone)]
pub(super) struct Fields(Arc<BTreeMap<String, Box<dyn Val>>>);

/// List of values.
#[derive(Debug, Clone)]
pub(super) struct Items(Arc<Vec<Box<dyn Val>>>);

impl StaticVal for Fields {}
impl StaticVal for Items {}

impl FromIterator<(String, Box<dyn Val>)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Box<dyn Val>)>>(fields: I) -> Fields {
        Fields(Arc::new(fields.into_iter().collect()))
    }
}

/// Converts JSON into CEL values. The JSON parser has limited the depth.
pub(super) fn of_json(json: Json) -> Box<dyn Val> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(value) => Box::new(CelBool::from(value)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Box::new(CelInt::from(value)),
            (None, Some(value)) => Box::new(CelUInt::from(value)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(value) => Box::new(CelString::from(value)),
        Json::Array(values) => {
            let values = values.into_iter().map(of_json);
            Box::new(Items(Arc::new(values.collect())))
        }
        Json::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (name, of_json(value)));
            Box::new(fields.collect::<Fields>())
        }
    }
}

fn not_to_index_with(index: &dyn Val) -> ExecutionError {
    ExecutionError::UnexpectedType {
        got: index.get_type().name().to_owned(),
        want: "a name of a field, or a number of an item".to_owned(),
    }
}

impl Val for Fields {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(Fields(other)) = other.downcast_ref::<Fields>() else {
            return false;
        };
        let mut pairs = self.0.iter().zip(other.iter());
        self.0.len() == other.len() && pairs.all(|(a, b)| a.0 == b.0 && a.1.equals(b.1.as_ref()))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for Fields {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let name = key.downcast_ref::<CelString<'_>>();
        Ok(name.is_some_and(|name| self.0.contains_key(name.inner())))
    }
}

impl Indexer for Fields {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key.downcast_ref::<CelString<'_>>();
        let name = name.ok_or_else(|| not_to_index_with(key))?.inner();
        let found = self.0.get(name).map(|it| CowVal::Borrowed(it.as_ref()));
        found.ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Sizer for Fields {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}

impl Val for Items {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    /// A list literal in the expression has the library's own type. It is never the left operand.
    fn equals(&self, other: &dyn Val) -> bool {
        let own = other.downcast_ref::<Items>().map(|other| &other.0[..]);
        let literal = other.downcast_ref::<CelList<'_>>();
        if let Some(other) = own {
            let mut pairs = self.0.iter().zip(other);
            return self.0.len() == other.len() && pairs.all(|(a, b)| a.equals(b.as_ref()));
        }
        literal.is_some_and(|other| {
            let other = other.inner();
            let mut pairs = self.0.iter().zip(other);
            self.0.len() == other.len() && pairs.all(|(a, b)| a.equals(b.as_ref()))
        })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for Items {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.0.iter().any(|item| item.equals(value)))
    }
}

impl Indexer for Items {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let int = index.downcast_ref::<CelInt>().map(|it| *it.inner());
        let uint = index.downcast_ref::<CelUInt>().map(|it| *it.inner());
        let number = match (int, uint) {
            (Some(number), _) => usize::try_from(number).ok(),
            (None, Some(number)) => usize::try_from(number).ok(),
            (None, None) => return Err(not_to_index_with(index)),
        };
        let found = number.and_then(|number| self.0.get(number));
        let found = found.map(|it| CowVal::Borrowed(it.as_ref()));
        found.ok_or(ExecutionError::IndexOutOfBounds(Value::Null))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Sizer for Items {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}
