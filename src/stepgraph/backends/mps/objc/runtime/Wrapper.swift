import Foundation
import __NAME__Graph

/// __TITLE__: trains and predicts on the GPU. Call it from a background task, one call at a time.
public final class __NAME__ {
    /// Samples of a training step.
    public static let trainingBatchSize = Int(__NAME__Graph.trainingBatchSize)
    /// Elements of one sample: __INPUT_ABOUT__.
    public static let inputCount = Int(__NAME__Graph.inputLength) / MemoryLayout<__INPUT_SWIFT__>.stride
    /// Elements of one sample's label: __LABEL_ABOUT__.
    public static let labelCount = Int(__NAME__Graph.labelLength) / MemoryLayout<__LABEL_SWIFT__>.stride
    /// Elements of one sample's prediction: __OUTPUT_ABOUT__.
    public static let outputCount = Int(__NAME__Graph.outputLength) / MemoryLayout<__OUTPUT_SWIFT__>.stride

    /// The weights that came with this package.
    public static var exportedWeights: URL {
        Bundle.module.url(forResource: "weights", withExtension: "safetensors")!
    }

    private let graph: __NAME__Graph

    /// Compiles the graphs, with weights from a file that `save` or stepgraph wrote.
    public init(weights: URL = __NAME__.exportedWeights) throws {
        graph = try __NAME__Graph(weights: weights)
    }

    /// Makes one training step on `trainingBatchSize` samples and returns the loss before it.
    public func train(_ batch: [__INPUT_SWIFT__], labels: [__LABEL_SWIFT__]) throws -> Float {
        try graph.trainBatch(data(of: batch), labels: data(of: labels)).floatValue
    }

    /// Predicts any number of samples, one after the other in memory.
    public func predict(_ samples: [__INPUT_SWIFT__]) throws -> [__OUTPUT_SWIFT__] {
        let found = try graph.predict(data(of: samples))
        return found.withUnsafeBytes { Array($0.bindMemory(to: __OUTPUT_SWIFT__.self)) }
    }

    /// Writes weights, moving statistics and the optimizer's state.
    public func save(to url: URL) throws {
        try graph.save(to: url)
    }

    private func data<Element>(of values: [Element]) -> Data {
        values.withUnsafeBytes { Data($0) }
    }
}
