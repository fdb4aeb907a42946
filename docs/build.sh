#!/usr/bin/env bash
# docs/build.sh: makes the site build/site/html from the pages and from the comments of the headers. Fails at a broken link and at
# a public type, function or variable without a comment.
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"
cd "$root"
need_packages doxygen python3-venv
site=build/site
rm -rf "$site/pages" "$site/html"
mkdir -p "$site"

# Every page keeps its place, so that links between pages hold; an index of a folder is its index.html.
git ls-files -z '*.md' 'docs/*.svg' 'benchmarks/results/*' 'LICENSE' | while IFS= read -r -d '' page; do
  mkdir -p "$site/pages/$(dirname "$page")"
  cp "$page" "$site/pages/$page"
done
cp docs/site/wide.css "$site/pages"
find "$site/pages" -name README.md -execdir mv {} index.md \;
find "$site/pages" -name '*.md' -exec sed -i 's|\(]([^):]*\)README\.md|\1index.md|g' {} +
# A bar in the code of a table is escaped for other readers of Markdown; this one would show the backslash.
find "$site/pages" -name '*.md' -exec perl -pi -e 's/(`[^`]*`)/$1 =~ s{\\\|}{|}gr/ge' {} +

tool=build/mkdocs
if [[ ! -x $tool/bin/mkdocs ]]; then
  rm -rf "$tool"
  if ! python3 -m venv "$tool" ||
    ! "$tool/bin/pip" install --quiet --disable-pip-version-check 'mkdocs==1.6.1' 'mkdocs-material==9.6.*'; then
    rm -rf "$tool"
    echo "skipped: mkdocs-material cannot be installed, only comments are checked"
  fi
fi
if [[ -x $tool/bin/mkdocs ]]; then
  "$tool/bin/mkdocs" build --strict --config-file docs/site/mkdocs.yml > "$site/mkdocs.log" 2>&1 || { cat "$site/mkdocs.log" >&2; exit 1; }
fi

doxygen docs/site/Doxyfile
# Members of types, deduction guides, specialisations and operators are as their concept, type, template or standard says.
if grep -E 'is not documented|not found' "$site/doxygen.log" |
  grep -vE 'of (class|struct|file) | -> |> is not documented|rule_name<|Member operator|Member get\(|::scalars |::source_type |::level '; then
  fail "these names have no comment"
fi
echo "$site/html; search needs a server: python3 -m http.server -d $site/html"
