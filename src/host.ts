// What not every host has: modules of Node and packages that need not be there. Knows nothing of what they do.

/** Imports a module where there is one. Bundlers for pages and edge workers must not look for it, so its name is an argument. */
export const importOptional = <T>(name: string): Promise<T> =>
  import(/* @vite-ignore */ /* webpackIgnore: true */ name);
