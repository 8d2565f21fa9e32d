// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "__NAME__",
    platforms: [.iOS("18.1"), .macOS("15.1")],
    products: [.library(name: "__NAME__", targets: ["__NAME__"])],
    targets: [
        .target(
            name: "__NAME__Graph",
            linkerSettings: [
                .linkedFramework("Foundation"),
                .linkedFramework("Metal"),
                .linkedFramework("MetalPerformanceShaders"),
                .linkedFramework("MetalPerformanceShadersGraph"),
            ]
        ),
        .target(
            name: "__NAME__",
            dependencies: ["__NAME__Graph"],
            resources: [.copy("weights.safetensors")]
        ),
    ]
)
