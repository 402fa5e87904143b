//! Items as lines of text.

use std::{collections::BTreeSet, mem};

use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, Visibility,
    visit_mut::{self, VisitMut},
};

use crate::tree::{is_public, is_there, with, with_conditions};

/// Takes away what is nobody's business: documentation, lints, bodies.
struct Bare;

impl VisitMut for Bare {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let kept = [
            "derive",
            "non_exhaustive",
            "must_use",
            "deprecated",
            "default",
        ];
        attributes.retain(|attribute| kept.iter().any(|kept| attribute.path().is_ident(kept)));
        for attribute in attributes {
            // The reason is prose.
            if attribute.path().is_ident("must_use") {
                *attribute = syn::parse_quote!(#[must_use]);
            }
        }
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.clear();
    }

    /// What a function does with its own arguments is no part of its signature.
    fn visit_receiver_mut(&mut self, receiver: &mut syn::Receiver) {
        receiver.mutability = None;
    }

    fn visit_pat_ident_mut(&mut self, pattern: &mut syn::PatIdent) {
        pattern.mutability = None;
    }

    fn visit_impl_item_const_mut(&mut self, constant: &mut syn::ImplItemConst) {
        if matches!(constant.expr, syn::Expr::Struct(_)) {
            constant.expr = syn::parse_quote!(_);
        }
        visit_mut::visit_impl_item_const_mut(self, constant);
    }

    fn visit_item_struct_mut(&mut self, item: &mut syn::ItemStruct) {
        match &mut item.fields {
            Fields::Named(fields) => {
                let (public, private): (Vec<_>, Vec<_>) = mem::take(&mut fields.named)
                    .into_iter()
                    .partition(|field| is_public(&field.vis));
                // Whoever builds one, or takes it apart, has to know that there are others.
                let others = private.into_iter().take(1).map(|mut field| {
                    field.vis = Visibility::Inherited;
                    field.ident = Some(syn::parse_quote!(__));
                    field.ty = syn::parse_quote!(_);
                    field
                });
                fields.named = public.into_iter().chain(others).collect();
            }
            Fields::Unnamed(fields) => {
                let private = fields
                    .unnamed
                    .iter_mut()
                    .filter(|field| !is_public(&field.vis));
                private.for_each(|field| {
                    field.vis = Visibility::Inherited;
                    field.ty = syn::parse_quote!(_);
                });
            }
            Fields::Unit => {}
        }
        visit_mut::visit_item_struct_mut(self, item);
    }
}

pub(crate) fn shown(item: &Item) -> String {
    let mut item = item.clone();
    if let Item::Trait(item) = &mut item {
        item.items.retain(|member| match member {
            syn::TraitItem::Fn(function) => is_there(&function.attrs),
            _ => true,
        });
    }
    Bare.visit_item_mut(&mut item);
    let mut file = syn::parse_file("").unwrap();
    file.items.push(item);
    on_one_line(&prettyplease::unparse(&file))
}

/// The line that begins it, and those of its members that are public: of a trait's, the types.
pub(crate) fn shown_impl(block: &ItemImpl) -> (String, BTreeSet<String>) {
    let mut header = block.clone();
    header.attrs.clear();
    header.items.clear();
    let header = shown(&Item::Impl(header));
    let of_trait = block.trait_.is_some();
    let members = block.items.iter().filter_map(|member| {
        let (attributes, public) = match member {
            ImplItem::Fn(item) => (&item.attrs, is_public(&item.vis)),
            ImplItem::Const(item) => (&item.attrs, of_trait || is_public(&item.vis)),
            ImplItem::Type(item) => (&item.attrs, of_trait),
            _ => return None,
        };
        if !public || !is_there(attributes) {
            return None;
        }
        let mut alone = block.clone();
        alone.attrs.clear();
        alone.items = vec![member.clone()];
        let text = shown(&Item::Impl(alone));
        let member = text
            .strip_prefix(header.trim_end_matches('}'))
            .unwrap_or(&text);
        let conditions = with_conditions(&[], attributes);
        Some(with(
            &conditions,
            tidy(
                member
                    .trim_end_matches('}')
                    .trim_end()
                    .trim_end_matches("{ "),
            ),
        ))
    });
    (tidy(&header), members.collect())
}

/// Without the empty block that stands for what is left out, and without commas before an end.
pub(crate) fn tidy(text: &str) -> String {
    let text = text
        .trim()
        .trim_end_matches("{}")
        .trim_end()
        .trim_end_matches(',');
    text.replace(", }", " }").replace("__: _", "..")
}

/// Joins the lines of a formatter, without the commas that it puts at their ends.
fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim) {
        if part.starts_with([')', '>', ']']) {
            line.truncate(line.trim_end_matches(',').len());
        } else if !line.is_empty() && !line.ends_with(['(', '<', '[']) {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}
